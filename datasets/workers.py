"""Pictures prepared by processes: ahead of the model, or in turns with it where both need the same cores."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets.base import Dataset
from xshot_bench.datasets.encoders.base import Encoder
from xshot_bench.datasets.views import view

if TYPE_CHECKING:
    from torch import Tensor

AHEAD = 3  # batches prepared before the model asks for them
TURN = 128  # views prepared while the model waits
PIECE = 16  # pictures that a worker prepares at once
MOST_WORKERS = 16
INTERRUPTS = signal.SIGINT, signal.SIGTERM

_worker = threading.local()


@dataclass(frozen=True)
class Preparation:
    """Makes the model's inputs of items: ``views`` are the numbers of the views of each, ``seed`` that of the crops.

    items: the items whose pictures are encoded, so the rows of all that is encoded.
    """

    dataset: Dataset
    encoder: Encoder
    views: tuple[int, ...]
    seed: int
    items: Sequence[int]

    def __call__(self, rows: Sequence[int]) -> np.ndarray:
        """Inputs ``[n,views,3,h,w]``. `InputError` where a picture cannot be read."""
        return np.stack([self._item(row) for row in rows])

    def _item(self, row: int) -> np.ndarray:
        name = self.name(row)
        try:
            picture = self.dataset.picture(self.items[row])
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise InputError(f"the picture of {name!r} cannot be read ({error}). Mend it or leave it out.") from error
        seen = (view(picture, number, name, self.seed, self.encoder.side) for number in self.views)
        return np.stack([self.encoder.preprocess(one).numpy() for one in seen])

    def name(self, row: int) -> str:
        """What the picture of a row is called."""
        return self.dataset.items[self.items[row]].id


def ahead(prepare: Preparation, batches: Sequence[range], turns: bool, workers: int | None = None) -> Generator[Tensor]:
    """The inputs of each batch, in order, prepared while the model is busy with those before.

    turns: the model computes on the cores that prepare. A pass on all of them waits at every layer for the one that
    is busy otherwise, so here the workers rest while the model is busy. workers: how many; None: one a core.
    """
    if not batches:
        return
    prepare(batches[0][:1])  # what the dataset builds when first used, as a font, is there before the workers fork
    pieces = [[batch[start : start + PIECE] for start in range(0, len(batch), PIECE)] for batch in batches]
    count = min(workers or cores(), MOST_WORKERS, sum(map(len, pieces)))
    pool, joiner = _pool(prepare, count), ThreadPoolExecutor(1)
    try:
        waiting: deque[Future[Tensor]] = deque()
        left, most = iter(pieces), max(1, TURN // (len(batches[0]) * len(prepare.views))) if turns else AHEAD
        while True:
            for batch in itertools.islice(left, 0 if turns and waiting else most - len(waiting)):
                waiting.append(joiner.submit(_join, [pool.submit(_run, piece) for piece in batch]))
            if turns:
                wait(waiting)
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepares pictures was killed. If memory ran out, give a smaller --batch-size."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        joiner.shutdown(cancel_futures=True)


def _pool(prepare: Preparation, count: int) -> Executor:
    """Processes that share what is in memory now (threads would wait for each other, as for the model); or threads.

    Elsewhere than on Linux processes cannot be forked safely.
    """
    if sys.platform != "linux":
        return ThreadPoolExecutor(count, initializer=_start, initargs=(prepare,))
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process, initargs=(prepare,))
    with _uninterrupted():
        pool.submit(int)  # the first task forks them all
    return pool


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: Python swallows it in a callback around a fork, and then a lock of logging stays locked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _start(prepare: Preparation) -> None:
    _worker.prepare = prepare


def _start_process(prepare: Preparation) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _start(prepare)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(rows: range) -> np.ndarray:
    return _worker.prepare(rows)


def _join(pieces: Sequence[Future[np.ndarray]]) -> Tensor:
    import torch

    return torch.from_numpy(np.concatenate([piece.result() for piece in pieces]))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
