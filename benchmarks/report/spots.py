"""What figures and pages are made from: the Comparison, and beside it each dataset at each X, query by query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from xshot_bench.benchmarks.comparison import Comparison
from xshot_bench.benchmarks.plan import Inputs, Plan
from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.report.figures_style import Look, looks
from xshot_bench.benchmarks.store import Store
from xshot_bench.datasets.splitting import Shots


@dataclass(frozen=True)
class Spot:
    """One dataset at one X. Numbers are fractions, means over the draws that a method has.

    queries: item ids (Q); classes: the class of each. ap: method -> AP ``[Q,2]``, i2t and t2i; NaN where nothing is
    relevant. precision: method -> its mean over queries ``[2,11]`` at recall 0, 0.1, ..., 1, interpolated.
    rankings: method -> what stood first (see ``records.Result.ap``) in its draw number ``draw[method]``.
    """

    dataset: str
    shots: Shots
    queries: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    ap: dict[str, np.ndarray] = field(default_factory=dict)
    precision: dict[str, np.ndarray] = field(default_factory=dict)
    rankings: dict[str, pd.DataFrame] = field(default_factory=dict)
    draw: dict[str, int] = field(default_factory=dict)

    def by_class(self) -> pd.DataFrame:
        """The mAP of each class (rows) and method (columns), over its queries and both directions."""
        mean = {method: ap.mean(1) for method, ap in self.ap.items()}
        return pd.DataFrame(mean).groupby(np.array(self.classes, dtype=object)).mean().dropna()


@dataclass(frozen=True)
class Findings:
    """All that there is to show of a plan. inputs, plugins: what its commands need to be given again."""

    plan: Plan
    comparison: Comparison
    spots: tuple[Spot, ...]
    inputs: Inputs
    plugins: tuple[Path, ...] = ()

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Method -> how it is drawn; the best are those that lie highest above the mean of their dataset and X."""
        found: dict[str, list[float]] = {variant.name: [] for variant in self.plan.variants}
        for spot in self.spots:
            mean = {method: float(np.nanmean(ap)) for method, ap in spot.ap.items()}
            for method, own in mean.items():
                found[method].append(own - float(np.mean(list(mean.values()))))
        side = {variant.name for variant in self.plan.variants if variant.group != "methods"}
        best = sorted(found, key=lambda name: (name in side, -np.mean(found[name] or [-1])))
        return looks(list(found), self.comparison.baseline, best)

    @cached_property
    def baselines(self) -> dict[str, str]:
        """Method -> the one that its differences are taken to."""
        return {row.method: row.difference.baseline for row in self.comparison.rows if row.difference}


def spots(plan: Plan, records: Mapping[str, Record], store: Store) -> Iterator[Spot]:
    """The spots of a plan that have a cell done, in table order."""
    done: dict[tuple[str, Shots], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for cell in plan.cells:
        record = records.get(cell.digest)
        if record and record.status == "done":
            done[cell.dataset, cell.shots][cell.method].append(record)
    for (dataset, shots), methods in done.items():
        yield _spot(Spot(dataset, shots), methods, store)


def _spot(spot: Spot, methods: Mapping[str, list[Record]], store: Store) -> Spot:
    columns = list(DIRECTIONS)
    for method, found in methods.items():
        first, *others = sorted(found, key=lambda record: record.cell.draw)
        ranked = store.rankings(first)
        aps = [ranked, *(store.average_precision(record) for record in others)]
        spot.ap[method] = np.mean([ap[columns].to_numpy() for ap in aps], axis=0)
        spot.precision[method] = np.mean([[r.precision[d] for d in DIRECTIONS] for r in found], axis=0)
        spot.rankings[method] = ranked
        spot.draw[method] = first.cell.draw
    return Spot(**{**vars(spot), "queries": tuple(ranked["query"]), "classes": tuple(ranked["class"])})
