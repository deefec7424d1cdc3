"""Where cells run: in this process, in several, or on a Ray cluster.

A cell computes with one thread on the CPU wherever it runs, so its numbers do not depend on how many run at once.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from xshot_bench.benchmarks.executors.limits import NO_LIMITS, Limits
from xshot_bench.benchmarks.executors.threads import one_thread

if TYPE_CHECKING:  # else imported where they are used: a node's Ray worker reaches node.py through this package
    from xshot_bench.benchmarks.executors.guards import Lost
    from xshot_bench.benchmarks.records import Result
    from xshot_bench.benchmarks.run import Job

Work = TypeVar("Work", bound=Sized)  # its length: the number of cells that it may take as long as
Made = TypeVar("Made")


@dataclass(frozen=True)
class Placement:
    """Where cells run. workers: how many at once at most; 0 on a cluster: as many as it has room for.

    limits: what each cell may take. address: of the Ray cluster, ``auto`` or ``HOST:PORT``.
    """

    workers: int
    limits: Limits = NO_LIMITS
    executor: Literal["local", "ray"] = "local"
    address: str = "auto"


HERE = Placement(1)  # this process


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
    if _apart(jobs, placement):
        from xshot_bench.benchmarks.executors import processes

        return processes.execute(jobs, placement.workers, placement.limits)
    from xshot_bench.benchmarks.run import run_job

    return (result for _, results in _here(run_job, jobs) for result in results)


def each(
    function: Callable[[Work], Made], works: Sequence[Work], placement: Placement
) -> Generator[tuple[Work, Made | Lost], None, None]:
    """What a function makes of each work, or why that is `Lost`, as they come; on this machine, whatever the executor.

    Other processes must be able to import the function.
    """
    if _apart(works, placement):
        from xshot_bench.benchmarks.executors import processes

        return processes.outcomes(function, deque(works), placement.workers, placement.limits)
    return _here(function, works)


def _apart(works: Sequence[Work], placement: Placement) -> bool:
    """Whether processes are started."""
    return bool(placement.limits) or (placement.workers > 1 and len(works) > 1)


def _here(function: Callable[[Work], Made], works: Sequence[Work]) -> Generator[tuple[Work, Made], None, None]:
    one_thread()
    for work in works:
        with redirect_stdout(sys.stderr):  # what methods print is no part of the table
            made = function(work)
        yield work, made
