"""One call of the program: options -> plan -> results -> table."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from xshot_bench import InputError
from xshot_bench.benchmarks.compare import compare
from xshot_bench.benchmarks.comparison import Comparison
from xshot_bench.benchmarks.describe import describe, open_dataset, open_encoder
from xshot_bench.benchmarks.executors import Placement, ready
from xshot_bench.benchmarks.forecast import Forecast
from xshot_bench.benchmarks.invocations import Invocations
from xshot_bench.benchmarks.mlflow_link import checked_uri
from xshot_bench.benchmarks.options import at_once, device_of, placement_of, roots_of, settings_of
from xshot_bench.benchmarks.plan import Inputs, Plan, encode_missing, make_plan
from xshot_bench.benchmarks.progress import Progress
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.report import changes as report
from xshot_bench.benchmarks.report import description, table
from xshot_bench.benchmarks.report.files import table_files
from xshot_bench.benchmarks.report.latex import to_latex
from xshot_bench.benchmarks.report.sheet import to_csv
from xshot_bench.benchmarks.running import run_jobs
from xshot_bench.benchmarks.side_by_side import Judging, changes, opened
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import DEFAULT, Suite
from xshot_bench.benchmarks.tracking import Tracker, default_uri, sync
from xshot_bench.benchmarks.tuning.policy import TRIALS
from xshot_bench.benchmarks.tuning.suite import tune_suite, tuners
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache
from xshot_bench.datasets.fetching import fetch
from xshot_bench.datasets.splitting import to_json

SUITE_OPTIONS = ("methods", "ablate", "sweep", "datasets", "encoder", "protocol", "shots", "draws", "gallery",
                 "baseline", "correction", "margin", "oracle")  # fmt: skip
DATA = {"json": table.to_json, "csv": to_csv, "latex": to_latex}


@dataclass(frozen=True)
class Invocation:
    """What the options come to."""

    suite: Suite
    registry: Registry
    store: Store
    inputs: Inputs
    placement: Placement
    mlflow_uri: str
    force: bool
    tune: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Invocation:
        """Read the command line's options; `InputError` where they do not fit together."""
        chosen = {name: options[name] for name in SUITE_OPTIONS} | {"settings": settings_of(options["settings"])}
        store = Store(options["results"])
        device = device_of(options["device"])
        suite = DEFAULT if options["suite"] is None else options["suite"]
        wanted = FeatureOptions(options["token_grid"], options["views"], ensemble=options["ensemble"])
        inputs = Inputs(
            roots=roots_of(options["roots"]),
            skip_bad_items=options["skip_bad_items"],
            cache=options["cache"] or default_cache(),
            device=device,
            wanted=wanted,
            batch_size=options["batch_size"],
        )
        return cls(
            suite=Suite.from_options(chosen, suite),
            registry=Registry(options["plugins"]),
            store=store,
            inputs=inputs,
            placement=placement_of(options, device),
            mlflow_uri=checked_uri(options["mlflow_uri"] or default_uri(store.folder)),
            force=options["force"],
            tune=options["tune"],
        )

    def plan(self) -> Plan:
        return make_plan(self.suite, self.registry, self.store, self.inputs, self.force)

    def tuned(self, compute: bool = True) -> Invocation:
        """With the parameters that tuning finds, if it was asked for; without ``compute`` from trials there are."""
        if not self.tune:
            return self
        placement = self.placement
        if placement.executor != "local":
            placement = Placement(at_once(self.inputs.device), placement.limits)
        with Progress() as progress:
            of_datasets = tuners(self.suite, self.registry, self.store, self.inputs, placement, progress=progress.stage)
            suite, found = tune_suite(self.suite, self.registry, of_datasets, progress.stage, compute=compute)
        for tuned in found:
            click.echo(tuned.in_words, err=True)
        return replace(self, suite=suite)


def main(options: Mapping[str, Any]) -> int:
    """Run the default command and print its table; returns the exit code."""
    call = Invocation.from_options(options)
    if options["dry_run"]:
        click.echo(_forecast(call, call.plan()))
        return 0
    with call.store.writing():
        call = call.tuned()
        plan = call.plan()
        with ready(call.placement, plan.jobs):
            comparison, tracker = run_suite(call, plan, Progress())
    _show(comparison, options["style"], options["ladder"])
    _say_where(call, tracker)
    return 1 if any(row.failed for row in comparison.rows) else 0


def run_suite(call: Invocation, plan: Plan, progress: Progress) -> tuple[Comparison, Tracker]:
    """Run what is left of a plan, keep and mirror each result as it comes, and compare them all."""
    for material in plan.materials:
        call.store.add_split(material.split.digest, to_json(material.split))
        for note in (*material.dataset.notes, *material.split.remarks(plan.suite.shots)):
            click.echo(f"{material.name}: {note}", err=True)
    tracker = Tracker(call.store, call.mlflow_uri)
    invocations = Invocations(call.store)
    invoked = invocations.begin(plan.suite, tuple(cell.digest for cell in plan.cells))
    tracker.start(invoked)
    records = dict(plan.records)
    todo = {cell.digest for job in plan.jobs for cell in job.cells}
    for digest, record in plan.records.items():
        if digest not in todo:
            tracker.mirror(record)  # a killed run may not have come to it
    try:
        with progress:
            encode_missing(plan, call.inputs, progress.stage)
            progress.start_cells(len(todo))
            for record in run_jobs(plan.jobs, call.placement, call.store, tracker):
                records[record.cell.digest] = record
                progress.finished(record)
        comparison = compare(plan, records, call.store)
        invoked = invocations.end(invoked, table_files(comparison), "finished")
    except BaseException:
        tracker.stop()
        invoked = invocations.end(invoked, {}, "interrupted")
        raise
    finally:
        tracker.end(invoked)
        with Progress() as waiting:
            tracker.finish(partial(waiting.stage, "telling MLflow"))
    return comparison, tracker


def sync_store(results: Path, uri: str | None) -> str:
    """Log every record to MLflow that it does not have; says how many there are."""
    store = Store(results)
    if not store.cells.is_dir():
        raise InputError(f"{results} holds no results. Give the folder of a run with --results.")
    with store.writing(), Progress() as progress:
        records = store.records()
        told = partial(progress.stage, "telling MLflow")
        tracker = sync(store, checked_uri(uri or default_uri(results)), records, told)
    if tracker.error:
        raise InputError(f"MLflow at {tracker.uri} cannot be used: {tracker.error} No result is lost.")
    return f"{tracker.logged} of {len(records)} records were new to MLflow at {tracker.uri}"


def compare_results(options: Mapping[str, Any]) -> int:
    """Print two sets of results side by side; returns the exit code."""
    judging, style = Judging(options["correction"], options["margin"] / 100), options["style"]
    with opened(options["a"]) as old, opened(options["b"]) as new:
        found = changes(old, new, judging)
    if style == "json":
        click.echo(report.to_json(found))
    elif _rich(style):
        from rich.console import Console

        console = Console()
        console.print(report.rich_table(found, judging, console.width))
    else:
        click.echo(report.markdown(found, judging))
    return 1 if any(change.failed for change in found) else 0


def describe_dataset(options: Mapping[str, Any]) -> str:
    """What ``describe`` prints; writes the contact sheet that it may ask for."""
    registry = Registry(options["plugins"])
    given = DatasetOptions(options["root"], options["skip_bad_items"], options["cache"] or default_cache())
    dataset = open_dataset(registry, options["dataset"], given)
    found = describe(dataset, open_encoder(registry, options["encoder"]), options["encoder"])
    if options["sheet"]:
        description.contact_sheet(dataset, options["sheet"])
    return json.dumps(found.to_dict(), indent=1) if options["style"] == "json" else description.markdown(found)


def regenerate_splits(name: str, folder: Path | None, plugins: Sequence[Path]) -> list[Path]:
    """Make the split files of a dataset that ships some."""
    registry = Registry(plugins)
    cls: Any = registry.load("dataset", name)
    if not hasattr(cls, "write_splits"):
        raise InputError(
            f"the dataset {name!r} ships no split files: its splits are made from its items as it is read."
        )
    paths: list[Path] = cls.write_splits(folder)
    return paths


def fetch_dataset(name: str, root: Path, plugins: Sequence[Path]) -> Iterator[str]:
    """Get a dataset's folder into ``root`` as far as can be; yields lines on what there is and what is to do."""
    cls: Any = Registry(plugins).load("dataset", name)
    if cls.origin is None:
        raise InputError(f"the dataset {name!r} has nothing to fetch: it is in a package, or in a folder of yours.")
    yield from fetch(cls.name, cls.origin, root)


def _forecast(call: Invocation, plan: Plan) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in plan.counts().items())
    todo, workers = sum(len(job.cells) for job in plan.jobs), call.placement.workers
    left = Forecast(call.store.records()).total(plan.jobs)
    if not todo:
        time = "nothing to compute"
    elif left is None:
        time = f"{todo} to compute, no earlier times of all these methods"
    else:
        at_once = (
            f"with {workers} at once" if workers else "with one at once, the less the more the cluster has room for"
        )
        time = f"{todo} to compute, about {left / (workers or 1):.0f} s {at_once}"
    encode = [m.name for m in plan.materials if not m.encoded]
    more = f"; features of {', '.join(encode)} are to be encoded first" if encode else ""
    more += f". First each method is tuned on each dataset, {TRIALS} trials at most" if call.tune else ""
    return f"{len(plan.cells)} cells: {counts}. {time[0].upper()}{time[1:]}{more}."


def _show(comparison: Comparison, style: str, ladder: bool) -> None:
    if _rich(style):
        from rich.console import Console

        console = Console()
        console.print(table.rich_tables(comparison, console.width, ladder))
    elif style in DATA:
        click.echo(DATA[style](comparison), nl=style == "json")
    else:
        click.echo(table.markdown(comparison, ladder))


def _rich(style: str) -> bool:
    return style == "rich" or (style == "auto" and sys.stdout.isatty())


def _say_where(call: Invocation, tracker: Tracker) -> None:
    click.echo(f"\nResults: {call.store.folder}", err=True)
    if tracker.uri.startswith("sqlite") and not tracker.error:
        click.echo(f"MLflow:  mlflow ui --backend-store-uri {tracker.uri}", err=True)
