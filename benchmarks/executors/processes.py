"""Work in several processes of this machine, or in one apart from this, each piece under limits."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from xshot_bench.benchmarks.executors import Work
from xshot_bench.benchmarks.executors.guards import GONE, Lost, answer, ask, guardians
from xshot_bench.benchmarks.executors.limits import Limits
from xshot_bench.benchmarks.records import Result
from xshot_bench.benchmarks.run import Job, lost, run_job

NOTHING = pickle.dumps(GONE)


def execute(jobs: Sequence[Job], workers: int, limits: Limits) -> Generator[Result, None, None]:
    """Results as they come. A job that breaks its process or a limit has failed, and nothing else has.

    Cells that are trained together are then tried one by one. A job whose process was killed from outside, as the
    kernel does where memory runs out, is tried once more when nothing else runs.
    """
    waiting, killed = deque(jobs), deque[Job]()
    with closing(outcomes(run_job, waiting, workers, limits)) as found:
        for job, outcome in found:
            if not isinstance(outcome, Lost):
                yield from outcome
            elif len(job) > 1:
                waiting.extendleft(replace(job, cells=(cell,)) for cell in reversed(job.cells))
            elif outcome.killed:
                killed.append(job)
            else:
                yield from lost(job, outcome.reason)
    with closing(outcomes(run_job, killed, 1, limits)) as found:
        for job, outcome in found:
            yield from lost(job, outcome.reason) if isinstance(outcome, Lost) else outcome


def outcomes(
    function: Callable[[Work], Any], waiting: deque[Work], workers: int, limits: Limits
) -> Generator[tuple[Work, Any], None, None]:
    """What a function makes of each work that waits, begun in that order, or why it is `Lost`, as they come.

    More may be put into ``waiting`` meanwhile.
    """
    while waiting:
        with guardians(min(workers, len(waiting)), limits) as idle:
            running: dict[Connection, Work] = {}
            came: list[tuple[Work, bytes]] = []
            while running or came or (waiting and idle):
                while waiting and idle:
                    pipe, work = idle.pop(), waiting.popleft()
                    try:
                        ask(pipe, partial(function, work), len(work))
                        running[pipe] = work
                    except OSError:
                        came.append((work, NOTHING))
                for work, content in came:  # while all are at work
                    yield work, pickle.loads(content)  # noqa: S301 - from the guardian
                came.clear()
                for pipe in cast("list[Connection]", wait(list(running))) if running else ():
                    work = running.pop(pipe)
                    try:
                        came.append((work, answer(pipe)))
                        idle.append(pipe)
                    except (EOFError, OSError):
                        came.append((work, NOTHING))
