"""How much of the cores' time goes into cells: a grid of 2,040 cells, run as a suite is, on the cores there are.

python -m xshot_bench.benchmarks.bench_scaling
python -m xshot_bench.benchmarks.bench_scaling --mlflow-uri none
python -m xshot_bench.benchmarks.bench_scaling --methods clip,prototype,ridge --draws 5 --jobs 2

Efficiency is (the sum of the cells' seconds / cores) / the seconds of the run, which begin before the first process is
started and end when the last record is stored and told to MLflow. A cell's seconds are measured by the clock where it
runs, so what takes a core away from it, as the writer of MLflow does, lengthens it: the CPU seconds beside it tell. All
is kept in a temporary folder. On a busy machine the figures mean nothing.

The methods are of every kind, and quicker than those of the default suite, whose cells take three times as long.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
from tabulate import tabulate

from xshot_bench.benchmarks.executors import Placement
from xshot_bench.benchmarks.invocation import Invocation
from xshot_bench.benchmarks.invocations import Invocations
from xshot_bench.benchmarks.plan import Inputs, encode_missing
from xshot_bench.benchmarks.records import Record, Result
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.running import run_jobs
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.benchmarks.tracking import Tracker, default_uri
from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache
from xshot_bench.datasets.workers import cores

METHODS = (
    "clip,prototype,tip_adapter,gda,cca,kcca,ridge,scm,linear_probe,cross_modal_probe,lppp,clip4cmr,acmr,dscmr,"
    "flexclip:nogen,cada_vae,flexclip"
)
SHOTS = (1, 3, 5, 7)
SAMPLE = 200  # records that are written and logged once more, to see what that takes


@dataclass(frozen=True)
class Spent:
    """What a run took. clock: its seconds. workers, parent: CPU seconds. records: of all cells."""

    clock: float
    workers: float
    parent: float
    records: tuple[Record, ...]

    @property
    def cells(self) -> float:
        """The sum of the cells' seconds by the clock."""
        return sum(sum(record.seconds.values()) for record in self.records)


@click.command()
@click.option("--methods", default=METHODS, help="Separated by commas.")
@click.option("--datasets", default="openmoji,openmoji/b,openmoji/c", show_default=True)
@click.option("--draws", default=10, show_default=True)
@click.option("--jobs", type=click.IntRange(1), help="Cells at once. [default: the cores there are]")
@click.option("--mlflow-uri", help="A tracking server, or none. [default: SQLite, as in a run]")
def main(methods: str, datasets: str, draws: int, jobs: int | None, mlflow_uri: str | None) -> None:
    """Run the grid and print where the time went."""
    available = cores()
    asked = {"methods": methods.split(","), "datasets": datasets.split(","), "shots": SHOTS, "draws": draws}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        call = Invocation(
            suite=Suite.from_options(asked),
            registry=Registry(),
            store=store,
            inputs=Inputs({}, False, default_cache(), "cpu", FeatureOptions()),
            placement=Placement(jobs or available),
            mlflow_uri=mlflow_uri or default_uri(store.folder),
            force=False,
        )
        with store.writing():
            spent = measure(call)
            parts = [(f"{part} of a cell, CPU ms", 1000 * seconds) for part, seconds in overheads(call, spent.records)]
    many = len(spent.records)
    rows = [
        ("cells", many),
        ("cores", available),
        ("cells at once", call.placement.workers),
        ("seconds of the run", spent.clock),
        ("sum of the cells' seconds", spent.cells),
        ("seconds of a cell, mean", spent.cells / many),
        ("EFFICIENCY, %", 100 * spent.cells / available / spent.clock),
        ("CPU seconds of the cells' processes", spent.workers),
        ("CPU seconds of the run's own process", spent.parent),
        ("CPU of the cells' processes, % of the cores' time", 100 * spent.workers / available / spent.clock),
        ("lost beside cells, core ms a cell", 1000 * (available * spent.clock - spent.cells) / many),
        *parts,
    ]
    print(tabulate(rows, floatfmt=".2f", tablefmt="github"))


def measure(call: Invocation) -> Spent:
    """Run the whole suite of the call."""
    plan = call.plan()
    encode_missing(plan, call.inputs, lambda *_: None)
    tracker = Tracker(call.store, call.mlflow_uri)
    tracker.start(Invocations(call.store).begin(plan.suite, tuple(cell.digest for cell in plan.cells)))
    started, before = time.perf_counter(), _cpu()
    records = tuple(run_jobs(plan.jobs, call.placement, call.store, tracker))
    tracker.finish()
    clock, after = time.perf_counter() - started, _cpu()
    return Spent(clock, after[1] - before[1], after[0] - before[0], records)


def overheads(call: Invocation, records: tuple[Record, ...]) -> list[tuple[str, float]]:
    """CPU seconds that the run's own process spends on a cell: to write it, and to log it where it is logged."""
    some = records[:: max(1, len(records) // SAMPLE)]
    store = Store(call.store.folder.with_name("again"))
    with store.writing():
        results = [Result(record, (call.store.cells / record.ap_file).read_bytes()) for record in some]
        started = time.process_time()
        for result in results:
            store.add(result)
        written = time.process_time()
        tracker = Tracker(store, "none" if call.mlflow_uri == "none" else default_uri(store.folder))
        for record in some:
            tracker.mirror(record)
        tracker.finish()
        logged = time.process_time()
    parts = [("writing", (written - started) / len(some))]
    return parts if call.mlflow_uri == "none" else [*parts, ("logging", (logged - written) / len(some))]


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process, and of its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
