"""What the driver of a Ray cluster spends on a cell, and what that comes to on many nodes.

python -m xshot_bench.benchmarks.bench_cluster --address auto
python -m xshot_bench.benchmarks.bench_cluster --address auto --cells 30000 --nodes 100 --cores 16

Quick cells are run on the cluster and stored, and then told to MLflow (SQLite). The driver does that for one cell after
another, so it bounds how many cells a second any number of nodes can finish: that is the projection.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from tabulate import tabulate

from xshot_bench.benchmarks.executors import Placement, execute, ready
from xshot_bench.benchmarks.invocations import Invocations, Invoked
from xshot_bench.benchmarks.plan import Inputs, encode_missing, make_plan
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.benchmarks.tracking import Tracker, default_uri
from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache

SECONDS = (1, 3, 10, 30, 100)  # of computing a cell


class Cost(NamedTuple):
    """What was measured: CPU seconds a cell, and seconds until the first result came."""

    cells: int
    first: float
    exchange: float
    store: float
    threads: float
    mlflow: float

    @property
    def serial(self) -> float:
        """What happens for one cell after the other: Python's lock is held by one thread at a time."""
        return self.exchange + self.store + self.mlflow


@click.command()
@click.option("--address", default="auto", show_default=True)
@click.option("--dataset", default="openmoji", show_default=True)
@click.option("--cells", default=30_000, show_default=True, help="Of the projection, as the next two.")
@click.option("--nodes", default=100, show_default=True)
@click.option("--cores", default=16, show_default=True, help="Of each node.")
def main(address: str, dataset: str, cells: int, nodes: int, cores: int) -> None:
    """Measure on the cluster at ADDRESS and print both tables."""
    cost = measure(address, dataset)
    parts = {
        "send, wait, receive": cost.exchange,
        "store": cost.store,
        "MLflow (SQLite)": cost.mlflow,
        "one after the other": cost.serial,
        "Ray's own threads, beside them": cost.threads,
    }
    print(f"{cost.cells} cells; the first result came after {cost.first:.1f} s\n")
    print(tabulate(((name, f"{1000 * value:.1f}") for name, value in parts.items()), ["driver", "CPU ms a cell"]))
    print(f"\n{cells} cells on {nodes} nodes of {cores} cores\n")
    print(
        tabulate(
            projection(cost, cells, nodes * cores), ["s a cell", "ideal s", "took s", "used %", "without MLflow %"]
        )
    )


def measure(address: str, dataset: str) -> Cost:
    """Run quick cells; nothing stays of them."""
    suite = Suite.from_options(
        {"methods": ("random", "clip", "prototype"), "datasets": (dataset,), "shots": (0, 1, 3, 5, 7), "draws": 10},
        "default",
    )
    inputs = Inputs({}, False, default_cache(), "cpu", FeatureOptions())
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        placement = Placement(0, executor="ray", address=address)
        with store.writing():
            plan = make_plan(suite, Registry(), store, inputs)
            encode_missing(plan, inputs, lambda *_: None)
            with ready(placement, plan.jobs):
                began, all_threads, this = time.perf_counter(), time.process_time(), time.thread_time()
                first = storing = 0.0
                records = []
                for result in execute(plan.jobs, placement):
                    first = first or time.perf_counter() - began
                    before = time.thread_time()
                    records.append(store.add(result))
                    storing += time.thread_time() - before
                this, all_threads = time.thread_time() - this, time.process_time() - all_threads
            invoked = Invocations(store).begin(suite, tuple(cell.digest for cell in plan.cells))
            _tell(store, invoked, records[:1])  # once: MLflow is imported and makes its database
            told = _tell(store, invoked, records)
    count = len(records)
    return Cost(count, first, (this - storing) / count, storing / count, (all_threads - this) / count, told / count)


def _tell(store: Store, invoked: Invoked, records: Sequence[Record]) -> float:
    """CPU seconds that telling MLflow of records takes."""
    tracker, before = Tracker(store, default_uri(store.folder)), time.process_time()
    tracker.start(invoked)
    for record in records:
        tracker.mirror(record)
    tracker.wait()
    return time.process_time() - before


def projection(cost: Cost, cells: int, slots: int) -> list[tuple[str, ...]]:
    """For cells of some seconds: how long if nothing is lost, and with the driver, the start and the last cells."""
    rows: list[tuple[str, ...]] = []
    for seconds in SECONDS:
        ideal = cells * seconds / slots
        took, without = (
            cost.first + max(ideal + seconds, cells * serial) for serial in (cost.serial, cost.serial - cost.mlflow)
        )
        rows.append(
            (f"{seconds}", f"{ideal:.0f}", f"{took:.0f}", f"{100 * ideal / took:.0f}", f"{100 * ideal / without:.0f}")
        )
    return rows


if __name__ == "__main__":
    main()
