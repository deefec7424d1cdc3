"""Where cells run: in this process, or in several, or under limits in one apart from this.

A cell computes with one thread on the CPU wherever it runs, so its numbers do not depend on how many run at once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from xshot_bench.benchmarks.executors import processes
from xshot_bench.benchmarks.executors.limits import NO_LIMITS, Limits
from xshot_bench.benchmarks.executors.threads import one_thread
from xshot_bench.benchmarks.records import Result
from xshot_bench.benchmarks.run import Job, run_job


@dataclass(frozen=True)
class Placement:
    """Where cells run. workers: how many at once. limits: what each may take."""

    workers: int
    limits: Limits = NO_LIMITS


def execute(jobs: Sequence[Job], placement: Placement) -> Generator[Result, None, None]:
    """The results of all cells of the jobs, as they come."""
    if placement.limits or (placement.workers > 1 and len(jobs) > 1):
        return processes.execute(jobs, placement.workers, placement.limits)
    return _here(jobs)


def _here(jobs: Sequence[Job]) -> Generator[Result, None, None]:
    one_thread()
    for job in jobs:
        yield from run_job(job)
