"""Cells in several processes of this machine, or in one apart from this, each under limits."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import cast

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
    killed = yield from _run(jobs, workers, limits)
    again = yield from _run([job for job, _ in killed], 1, limits)
    for job, why in again:
        yield from lost(job, why.reason)


def _run(jobs: Sequence[Job], workers: int, limits: Limits) -> Generator[Result, None, list[tuple[Job, Lost]]]:
    """Run the jobs in their order; the generator's value is those that were killed from outside."""
    waiting = deque(jobs)
    killed: list[tuple[Job, Lost]] = []
    while waiting:
        with guardians(min(workers, len(waiting)), limits) as idle:
            running: dict[Connection, Job] = {}
            came: list[tuple[Job, bytes]] = []
            while running or came or (waiting and idle):
                while waiting and idle:
                    pipe, job = idle.pop(), waiting.popleft()
                    try:
                        ask(pipe, partial(run_job, job), len(job.cells))
                        running[pipe] = job
                    except OSError:
                        came.append((job, NOTHING))
                for job, content in came:  # while all are at work
                    found = pickle.loads(content)  # noqa: S301 - from the guardian
                    if not isinstance(found, Lost):
                        yield from found
                    elif len(job.cells) > 1:
                        waiting.extendleft(replace(job, cells=(cell,)) for cell in reversed(job.cells))
                    elif found.killed:
                        killed.append((job, found))
                    else:
                        yield from lost(job, found.reason)
                came.clear()
                for pipe in cast("list[Connection]", wait(list(running))) if running else ():
                    job = running.pop(pipe)
                    try:
                        came.append((job, answer(pipe)))
                        idle.append(pipe)
                    except (EOFError, OSError):
                        came.append((job, NOTHING))
    return killed
