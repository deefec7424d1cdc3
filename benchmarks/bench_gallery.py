"""Large galleries: what judging takes, in seconds and bytes.

    python -m xshot_bench.benchmarks.bench_gallery
    python -m xshot_bench.benchmarks.bench_gallery --sizes 1000000 --queries 10000
    python -m xshot_bench.benchmarks.bench_gallery --method calip --sizes 100000 --queries 1000
    python -m xshot_bench.benchmarks.bench_gallery --sizes 1000000 --queries 10000 --device cuda

Made-up features of 512 numbers (float16, memory-mapped; classes of 100 items) in a generalised gallery, judged as a
cell of the harness is: both directions, AP, recall, the first items and the curve. Each size runs in a process of its
own with one thread. Product and sort are the bare ones, of the same numbers: a matrix product and a values-only sort
(NumPy's, in place; on a GPU PyTorch's, which sorts positions with them). What comes once (the gallery read and
represented, the evidence sorted out) is told from what each query takes by a second, shorter run. On a CPU the seconds
are the processor's, which other work on the machine moves least; on a GPU the clock's, after a run that is not counted.
Memory is the most that was held beside the files' pages, and on the GPU.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from tabulate import tabulate

from xshot_bench.benchmarks.device_ranks import CHUNK
from xshot_bench.benchmarks.episode import Episode, make_episode
from xshot_bench.benchmarks.protocol import DIRECTIONS, Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge
from xshot_bench.datasets.feature_cache import FeatureSet, Rows
from xshot_bench.datasets.xshot import XShotSplit
from xshot_bench.methods.base import Method

WIDTH, MEMBERS, PLACES, BLOCK = 512, 100, 4, 8192
LEAST = 128  # queries of the shorter of two runs


@dataclass(frozen=True)
class Taken:
    """What judging one gallery took. Seconds of the bare product, the bare sort and the judge; bytes here and there."""

    product: float
    sort: float
    once: float
    judged: float
    held: int
    on_gpu: int


def made_up(folder: Path, items: int, tokens: bool) -> FeatureSet:
    """Features of ``items`` items, each near its class's direction; written and mapped, whatever the memory."""
    classes = -(-items // MEMBERS)
    label = np.arange(items) % classes
    centre = np.random.default_rng(0).standard_normal((classes, WIDTH), dtype=np.float32)

    def rows(seed: int, *shape: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        for start in range(0, items, BLOCK):
            own = centre[label[start : start + BLOCK]].reshape(-1, *(1,) * len(shape), WIDTH)
            yield (own + 2 * rng.standard_normal((len(own), *shape, WIDTH), dtype=np.float32)).astype(np.float16)

    shapes: dict[str, tuple[int, ...]] = {"image": (), "text": ()} | ({"tokens": (PLACES,)} if tokens else {})
    for seed, (name, shape) in enumerate(shapes.items()):
        Rows(items, rows(seed, *shape)).save(folder / f"{name}.npy")
    mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}
    return FeatureSet(
        **mapped,
        label=label,
        ids=tuple(f"item {n}" for n in range(items)),
        classes=tuple(f"class {n}" for n in range(classes)),
        class_text=centre.astype(np.float16),
        logit_scale=100.0,
        digest="made-up",
    )


def episode(features: FeatureSet, queries: int, device: str) -> Episode:
    """``queries`` items of whole target classes search all items but those that serve for training."""
    members: dict[str, list[str]] = {name: [] for name in features.classes}
    for item, label in zip(features.ids, features.label, strict=True):
        members[features.classes[label]].append(item)
    target = features.classes[: -(-queries // (MEMBERS - 1))]
    source = features.classes[len(target) :]
    learnt = {name: tuple(ids[:1]) for name, ids in members.items()}
    split = XShotSplit(
        name="made-up",
        digest="",
        source=source,
        target=target,
        validation=source[:2],
        train=learnt,
        test={name: tuple(ids[1:]) for name, ids in members.items()},
        support={0: {name: learnt[name] for name in target}},
    )
    return make_episode(features, split, Setting(1, 0, "all"), device)


def clock(device: str) -> float:
    """Seconds of this process's work, or where a GPU has its part in it, the wall's when that has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of_judge(method: type[Method], features: FeatureSet, queries: int, device: str) -> tuple[int, float]:
    """How many queries there were in truth, and what judging them took, both directions."""
    made = episode(features, queries, device)
    fitted = method()
    fitted.fit(made.task)
    start = clock(device)
    judge(fitted, made)
    return len(made.queries.image), clock(device) - start


def bare(features: FeatureSet, queries: int, device: str) -> tuple[float, float]:
    """Seconds of the product ``queries`` × gallery and of a sort of it, both directions."""
    product = sort = 0.0
    gallery = torch.empty(len(features.text), WIDTH, device=device)
    for start in range(0, len(gallery), BLOCK):
        gallery[start : start + BLOCK] = torch.from_numpy(features.text[start : start + BLOCK].astype(np.float32))
    room = torch.zeros(LEAST, len(gallery), device=device)  # touched once, as fresh memory costs more than arithmetic
    for start in range(0, queries, LEAST):
        some = torch.from_numpy(features.image[start : min(start + LEAST, queries)].astype(np.float32)).to(device)
        before, scores = clock(device), room[: len(some)]
        torch.mm(some, gallery.T, out=scores)
        between = clock(device)
        if device == "cpu":
            scores.numpy().sort(axis=1)
        else:
            for part in scores.split(max(1, CHUNK // len(gallery))):
                part.sort(dim=1)
        product, sort = product + between - before, sort + clock(device) - between
    return len(DIRECTIONS) * product, len(DIRECTIONS) * sort


class Held:
    """The most memory that this process held beside files' pages, in bytes, looked at twenty times a second."""

    def __enter__(self) -> Held:
        self.most, self._over = 0, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            status = Path("/proc/self/status").read_text(encoding="ascii").split("RssAnon:")[1]
            self.most = max(self.most, 1024 * int(status.split()[0]))


def measure(method: str, items: int, queries: int, device: str) -> Taken:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found = cast("type[Method]", Registry().load("method", method))
        features = made_up(Path(folder), items, "tokens" in found.needs)
        if device != "cpu":
            seconds_of_judge(found, features, LEAST, device)
        with Held() as held:
            few, short = seconds_of_judge(found, features, LEAST, device)
            many, long = seconds_of_judge(found, features, queries, device)
        on_gpu = 0 if device == "cpu" else torch.cuda.max_memory_allocated()
        product, sort = bare(features, many, device)
    a_query = (long - short) / (many - few)
    return Taken(product, sort, long - many * a_query, long, held.most, on_gpu)


@click.command()
@click.option("--method", default="clip", show_default=True)
@click.option("--sizes", default="250000,500000,1000000", show_default=True, help="Of the gallery, comma-separated.")
@click.option("--queries", default=500, show_default=True, help="10000 is the full job: a quarter of an hour on a CPU.")
@click.option("--device", default="cpu", show_default=True)
def main(method: str, sizes: str, queries: int, device: str) -> None:
    """What judging METHOD on large galleries takes."""
    if device != "cpu" and not torch.cuda.is_available():
        raise click.UsageError(f"there is no GPU here for --device {device}.")
    if queries < 2 * LEAST:
        raise click.UsageError(f"give at least {2 * LEAST} queries.")
    rows = []
    for items in map(int, sizes.split(",")):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            taken = fresh.submit(measure, method, items, queries, device).result()
        bare_seconds = taken.product + taken.sort
        every = (taken.judged - taken.once) / bare_seconds
        rows.append((f"{items:,}", taken.product, taken.sort, taken.once, taken.judged, taken.judged / bare_seconds,
                     every, taken.held / 2**30, taken.on_gpu / 2**30))  # fmt: skip
    head = ["gallery", "product s", "sort s", "once s", "judged s", "judged / (product + sort)", "without once", "GiB"]
    print(tabulate(rows, [*head, "on the GPU"], floatfmt=".2f", disable_numparse=[0]))


if __name__ == "__main__":
    main()
