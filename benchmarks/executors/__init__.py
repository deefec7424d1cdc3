"""Where cells run: in this process, or in several.

A cell computes with one thread on the CPU wherever it runs, so its numbers do not depend on how many run at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xshot_bench.benchmarks.executors import processes
from xshot_bench.benchmarks.executors.threads import one_thread
from xshot_bench.benchmarks.records import Result
from xshot_bench.benchmarks.run import Job, run_job


@dataclass(frozen=True)
class Placement:
    """Where cells run. workers: how many at once."""

    workers: int


def execute(jobs: Sequence[Job], placement: Placement) -> Iterator[Result]:
    """The results of all cells of the jobs, as they come."""
    if placement.workers > 1 and len(jobs) > 1:
        return processes.execute(jobs, placement.workers)
    return _here(jobs)


def _here(jobs: Sequence[Job]) -> Iterator[Result]:
    one_thread()
    for job in jobs:
        yield from run_job(job)
