"""`run_bench.py report`: what there is of a suite becomes a page and figures, kept in the store and told to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from xshot_bench import InputError
from xshot_bench.benchmarks.compare import compare
from xshot_bench.benchmarks.invocation import SUITE_OPTIONS, Invocation
from xshot_bench.benchmarks.invocations import Invocations
from xshot_bench.benchmarks.plan import Plan
from xshot_bench.benchmarks.recall import recalled
from xshot_bench.benchmarks.report.figures_set import figure_files
from xshot_bench.benchmarks.report.files import table_files
from xshot_bench.benchmarks.report.page import make_page
from xshot_bench.benchmarks.report.spots import Findings, spots
from xshot_bench.benchmarks.tracking import Tracker

PAGE = "report.html"


def report(options: Mapping[str, Any]) -> int:
    """Write the page, and the figures as files; says where they are and returns 0."""
    nothing_runs = {"force": False, "jobs": 1, "executor": "local", "cell_timeout": None, "cell_memory": None}
    call = _newest(Invocation.from_options(nothing_runs | dict(options)), options)
    for place in (options["to"], options["figures"]):
        if place and not place.absolute().parent.is_dir():
            raise InputError(f"there is no folder {place.absolute().parent} to write {place.name} to.")
    call = call.tuned(compute=False)
    plan = _plan(call)
    states = plan.counts()
    if not states["done"]:
        raise InputError(
            f"{call.store.folder} holds no result of this suite. Compute it first: the same options without `report`."
        )
    if len(plan.cells) > states["done"] + states["declined"]:
        counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        click.echo(f"Not all is there: {counts} of {len(plan.cells)} cells.", err=True)
    with call.store.writing():
        findings = Findings(
            plan=plan,
            comparison=compare(plan, plan.records, call.store),
            spots=tuple(spots(plan, plan.records, call.store)),
            inputs=call.inputs,
            plugins=call.registry.plugins,
        )
        page = make_page(findings)
        figures = dict(figure_files(findings))
        where = _keep(call, plan, findings, page, figures)
    if options["to"]:
        options["to"].write_text(page, encoding="utf-8")
    if options["figures"]:
        options["figures"].mkdir(exist_ok=True)
        for name, content in figures.items():
            (options["figures"] / name).write_bytes(content)
    click.echo(f"Page:    {options['to'] or where / PAGE}")
    click.echo(f"Figures: {options['figures'] or where / 'figures'}")
    return 0


def _newest(call: Invocation, options: Mapping[str, Any]) -> Invocation:
    """The call; where no option says what is to be shown, of the newest suite in the folder."""
    known = Invocations(call.store).all()
    chosen = any(options[name] not in (None, ()) for name in (*SUITE_OPTIONS, "settings", "suite"))
    if chosen or options["tune"] or not known:
        return call
    suite = known[-1].suite
    count = f"{len(suite.methods)} method{'s' * (len(suite.methods) > 1)}"
    click.echo(f"Shown is what was asked last: {count}, {known[-1].name}. Options choose something else.", err=True)
    return replace(call, suite=suite)


def _plan(call: Invocation) -> Plan:
    try:
        return call.plan()
    except InputError as error:
        plan = recalled(call.suite, call.registry, call.store)
        if plan is None:
            raise
        click.echo(f"{error}\nThe page is made from the records alone, without pictures.", err=True)
        return plan


def _keep(call: Invocation, plan: Plan, findings: Findings, page: str, figures: dict[str, bytes]) -> Path:
    """Put all into the invocation's folder, and tell MLflow; returns the folder."""
    invocations, tracker = Invocations(call.store), Tracker(call.store, call.mlflow_uri)
    asked = dict.fromkeys(cell.digest for cell in plan.cells)
    known = invocations.known(call.suite)
    if known and set(asked) < set(known.cells):  # a plan from records alone lacks those that have none
        asked = dict.fromkeys(known.cells)
    invoked = invocations.begin(call.suite, tuple(asked))
    tracker.start(invoked)
    for cell in plan.cells:
        if cell.digest in plan.records:
            tracker.mirror(plan.records[cell.digest])
    for stale in invocations.path(invoked).glob("figures/*"):
        stale.unlink()
    files = table_files(findings.comparison) | {PAGE: page} | {f"figures/{name}": f for name, f in figures.items()}
    tracker.end(invocations.end(invoked, files, "finished"))
    tracker.finish()
    return invocations.path(invoked)
