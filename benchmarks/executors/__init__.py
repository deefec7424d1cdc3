"""Where cells run: in this process, in several, or on a Ray cluster.

A cell computes with one thread on the CPU wherever it runs, so its numbers do not depend on how many run at once.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xshot_bench.benchmarks.executors.limits import NO_LIMITS, Limits

if TYPE_CHECKING:  # else imported where they are used: a node's Ray worker reaches node.py through this package
    from xshot_bench.benchmarks.records import Result
    from xshot_bench.benchmarks.run import Job


@dataclass(frozen=True)
class Placement:
    """Where cells run. workers: how many at once at most; 0 on a cluster: as many as it has room for.

    limits: what each cell may take. address: of the Ray cluster, ``auto`` or ``HOST:PORT``.
    """

    workers: int
    limits: Limits = NO_LIMITS
    executor: Literal["local", "ray"] = "local"
    address: str = "auto"


def ready(placement: Placement, jobs: Sequence[Job]) -> AbstractContextManager[None]:
    """The connection to the cluster, held while the jobs run. `InputError` where it cannot be had or run them."""
    if placement.executor == "ray" and jobs:
        from xshot_bench.benchmarks.executors import cluster

        return cluster.connected(placement.address, jobs)
    return nullcontext()


def execute(jobs: Sequence[Job], placement: Placement) -> Generator[Result, None, None]:
    """The results of all cells of the jobs, as they come; on a cluster inside of ``ready``."""
    if placement.executor == "ray" and jobs:
        from xshot_bench.benchmarks.executors import cluster

        return cluster.execute(jobs, placement.workers, placement.limits)
    if placement.limits or (placement.workers > 1 and len(jobs) > 1):
        from xshot_bench.benchmarks.executors import processes

        return processes.execute(jobs, placement.workers, placement.limits)
    return _here(jobs)


def _here(jobs: Sequence[Job]) -> Generator[Result, None, None]:
    from xshot_bench.benchmarks.executors.threads import one_thread
    from xshot_bench.benchmarks.run import run_job

    one_thread()
    for job in jobs:
        with redirect_stdout(sys.stderr):  # what methods print is no part of the table
            results = run_job(job)
        yield from results
