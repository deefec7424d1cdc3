"""Jobs -> records: each result is stored and told to MLflow as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from xshot_bench.benchmarks.executors import Placement, execute
from xshot_bench.benchmarks.forecast import Forecast
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.run import Job
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tracking import Tracker

QUICK = 5.0  # seconds of computing for which starting processes does not pay


def run_jobs(jobs: Sequence[Job], placement: Placement, store: Store, tracker: Tracker) -> Iterator[Record]:
    """Run jobs, those first that take longest by the store's recorded times, where there is more than a little to do.

    Yields each cell's record when it is stored.
    """
    forecast = Forecast(store.records() if jobs else ())
    left = forecast.total(jobs)
    if left is not None and left < QUICK and placement.executor == "local":
        placement = replace(placement, workers=1)
    with closing(execute(forecast.longest_first(jobs), placement)) as results:
        for result in results:
            record = store.add(result)
            tracker.mirror(record)
            yield record
