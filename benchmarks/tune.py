"""Chooses parameters on validation classes, without a look at target test items: defaults, and a user's own.

    python -m xshot_bench.benchmarks.tune ridge cca flexclip:posterior
    python -m xshot_bench.benchmarks.tune --all --write docs/hyperparameters.md
    python -m xshot_bench.benchmarks.tune --compare flexclip "flexclip{rounds=50}" "flexclip:nogen{steps=300}"

Every method gets the same number of trials, drawn from its ``search``, on the same rehearsals (tuning/); ``--compare``
shows the candidates given instead. Trials are kept, and an interrupted tuning goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import Variant
from xshot_bench.benchmarks.executors import Placement
from xshot_bench.benchmarks.executors.threads import one_thread
from xshot_bench.benchmarks.plan import Inputs, variants_of
from xshot_bench.benchmarks.progress import Progress
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.report.hyperparameters import put_into
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.benchmarks.tuning.policy import Tuned, Tuner, Untunable
from xshot_bench.benchmarks.tuning.rehearsals import SHOTS, Rehearsals, fit_all, mean_ap, rules_of
from xshot_bench.benchmarks.tuning.suite import tuners
from xshot_bench.benchmarks.tuning.trials import games_of
from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache
from xshot_bench.datasets.workers import cores
from xshot_bench.methods import calibration
from xshot_bench.methods.base import Declined, Method

ROW = "{:54}" + "{:>20}" * 3 + "{:>7}"
SWITCHED = ("sm:labels",)  # switches with parameters of their own
GRID = 7  # of spatial tokens, as run_bench.py has it


@click.command()
@click.argument("names", metavar="METHOD...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every method that declares a search.")
@click.option("--write", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Put the table into this.")
@click.option("--compare", "comparing", is_flag=True, help="Compare the methods as given, and tune nothing.")
@click.option("--datasets", default="openmoji", show_default=True, help="One or more, with commas between them.")
@click.option("--encoder", default="lite0-minilm", show_default=True)
@click.option("--protocol", type=click.Choice(list(SHOTS)), default="xshot", show_default=True)
@click.option("--root", type=click.Path(path_type=Path), help="The folder of a dataset of yours.")
@click.option("--plugin", "plugins", type=click.Path(path_type=Path), multiple=True, help="A file of yours.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where features are kept.")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), help="Where trials are kept.")
@click.option("--jobs", type=click.IntRange(1), help="Trials at once. [default: the cores there are]")
@click.option("--draws", default=1, show_default=True, help="With --compare: rehearsals of each fold.")
@click.option("--sharpness", default=calibration.SHARPNESS, help="With --compare: of the posteriors.")
def main(names: tuple[str, ...], everything: bool, comparing: bool, **options: Any) -> None:
    """Say which parameters are best on validation classes."""
    one_thread()
    registry, store = Registry(options["plugins"]), Store(options["results"])
    if everything:
        names = (*names, *searching(registry), *SWITCHED)
    if not names:
        raise InputError("no methods were given. Name some, or ask for --all.")
    if options["write"] and not everything:
        raise InputError("--write goes with --all: the table is one of all methods.")
    suite, inputs = _asked(names, options)
    variants = variants_of(suite, registry)
    for _, tuner in tuners(suite, registry, store, inputs, Placement(options["jobs"] or cores())):
        if comparing:
            calibration.SHARPNESS = options["sharpness"]
            for line in compared(tuner, variants, options["draws"]):
                click.echo(line)
            continue
        with store.writing(), Progress() as progress:
            tuner.compute(variants, progress.stage)
        found = []
        for variant in variants:
            try:
                found.append(tuner.tuned(variant))
            except Untunable as reason:
                click.echo(f"Left out: {reason}")
                continue
            for line in told(found[-1]):
                click.echo(line)
        if options["write"]:
            put_into(options["write"], sorted(found, key=lambda tuned: tuned.variant.name))


def searching(registry: Registry) -> list[str]:
    """The methods that declare what tuning may choose from."""
    usable = [entry.name for entry in registry.of("method") if not entry.error]
    return [name for name in usable if cast("type[Method]", registry.load("method", name)).search]


def _asked(names: Sequence[str], options: dict[str, Any]) -> tuple[Suite, Inputs]:
    """What to play with."""
    chosen = {"methods": names, "encoder": options["encoder"], "protocol": options["protocol"]}
    chosen |= {"datasets": options["datasets"].split(","), "shots": SHOTS[options["protocol"]][:1], "draws": 1}
    roots = {"": options["root"]} if options["root"] else {}
    inputs = Inputs(roots, False, options["cache"] or default_cache(), "cpu", FeatureOptions(GRID))
    return Suite.from_options(chosen), inputs


def told(tuned: Tuned) -> Iterator[str]:
    """What a tuning found, a line for each trial, the best marked."""
    for trial in sorted(tuned.trials, key=tuned.score, reverse=True):
        setting = " ".join(f"{name}={trial.parameters[name]}" for name in tuned.searched)
        means = " ".join(f"X={x} {mean:.3f}" for x, mean in trial.means.items()) or trial.reason
        marks = " chosen" * (trial is tuned.chosen) + " default" * (trial is tuned.default)
        yield f"{tuned.variant.name} {setting}: {tuned.score(trial):.4f} ({means}; {trial.seconds:.1f} s){marks}"


def compared(tuner: Tuner, variants: Sequence[Variant], draws: int) -> Iterator[str]:
    """The mean mAP of each candidate at each X, and its difference to the first with a standard error."""
    found: dict[str, dict[Any, np.ndarray]] = {}
    for i, variant in enumerate(variants):
        games = replace(games_of(tuner.setup(variant)), draws=draws)
        if i == 0:
            columns = (f"X={x}" for x in games.shots)
            yield ROW.format("candidate: mAP (difference, standard error)", *columns, "s/fit")
        started = time.process_time()
        scores = {x: _by_rule(variant.build(tuner.registry), games, x) for x in games.shots}
        seconds = time.process_time() - started
        count = sum(len(next(iter(by_rule.values()), ())) for by_rule in scores.values())
        for rule in dict.fromkeys(rule for by_rule in scores.values() for rule in by_rule):
            mine = {x: np.array(by_rule.get(rule, [np.nan])) for x, by_rule in scores.items()}
            first = found.setdefault(rule, mine)
            cells = [_cell(mine[x], first[x]) for x in games.shots]
            yield ROW.format(f"{variant.name} [{rule}]", *cells, f"{seconds / max(count, 1):.1f}")


def _by_rule(method: Method, games: Rehearsals, shots: Any) -> dict[str, list[float]]:
    """The mAP of every game by each scoring rule that the method knows; empty where it declines."""
    played = games.at(shots)
    try:
        fitted = fit_all(method, [task for task, _ in played])
    except Declined:
        return {}
    found: dict[str, list[float]] = {}
    for one, game in zip(fitted, played, strict=True):
        for rule in rules_of(one):
            found.setdefault(rule, []).append(mean_ap(one, *game))
    return found


def _cell(mine: np.ndarray, first: np.ndarray) -> str:
    difference = mine - first
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
    return f"{mine.mean():.3f} ({difference.mean():+.3f} {error:.3f})"


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except InputError as wrong:
        click.echo(f"Error: {wrong}", err=True)
        sys.exit(2)
