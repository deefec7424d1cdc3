"""Which figures there are of a comparison, each with its place on the page and the words under it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.report import figures
from xshot_bench.benchmarks.report.figures_style import to_file
from xshot_bench.benchmarks.report.spots import Findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A figure to be drawn. dataset and shots are "" where it is about all of them; ``panel`` "" is for files only."""

    kind: str
    panel: Literal["curves", "classes", "tests", ""]
    title: str
    caption: str
    draw: Callable[[], Figure]
    dataset: str = ""
    shots: str = ""

    @property
    def name(self) -> str:
        """A file's name without its ending, e.g. ``openmoji-b-x5-classes``."""
        parts = [self.dataset, f"x{self.shots}" if self.shots else "", self.kind]
        return re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part))


def figure_set(findings: Findings) -> Iterator[Shown]:
    """All figures of a comparison, undrawn."""
    comparison, looks = findings.comparison, findings.looks
    grey = sum(not look.bold for look in looks.values())
    more = f" In grey: the {grey} others." if grey else ""
    for dataset in comparison.datasets:
        draw = partial(figures.shots_curves, comparison, dataset, looks)
        says = "Bands: 95 % intervals over draws and queries. Dotted: the expected mAP of a random ranking."
        yield Shown("shots", "curves", "mAP by shots", says + more, draw, dataset)
    for spot in findings.spots:
        where = {"dataset": spot.dataset, "shots": str(spot.shots)}
        draw = partial(figures.cost_quality, comparison, spot.dataset, spot.shots, looks)
        says = "Up and left is better. Bars: 95 % intervals. Seconds were measured where each cell ran."
        yield Shown("cost", "curves", "Cost and quality", says + more, draw, **where)
        says = (
            "Precision at recall 0, 10, …, 100 %: of each query the highest at that recall or a later one (11-point "
            "interpolation, as trec_eval's), then the mean over queries and draws."
        )
        for direction in DIRECTIONS:
            arrow = {"i2t": "image → text", "t2i": "text → image"}[direction]
            draw = partial(figures.precision_recall, spot, direction, looks)
            yield Shown(
                f"precision-recall-{direction}", "curves", f"Precision and recall, {arrow}", says + more, draw, **where
            )
        if 2 * len(set(spot.classes)) <= len(spot.queries):  # else a class is hardly more than an item
            says = f"By the mean of all methods; of more than {figures.MOST_CLASSES} classes those that differ most."
            draw = partial(figures.class_dots, spot, looks)
            yield Shown("classes", "classes", "mAP of each class", says + more, draw, **where)
        others = [method for method in spot.ap if method != comparison.baseline]
        if others and comparison.baseline in spot.ap:
            best = max(others, key=lambda method: float(np.nanmean(spot.ap[method])))
            draw = partial(figures.query_scatter, spot, comparison.baseline, best, looks)
            yield Shown("queries", "", f"{best} against {comparison.baseline}", "", draw, **where)
    for ranking in comparison.rankings:
        if ranking.ranks:
            draw = partial(figures.critical_difference, ranking, looks)
            says = f"Mean ranks over {len(ranking.blocks)} blocks: {', '.join(ranking.blocks)}. "
            says += ranking.refused and f"No bars: {ranking.refused}."
            says += "" if ranking.refused else "A bar joins methods that are not told apart (Wilcoxon, Holm)."
            title = f"Critical difference at X = {ranking.shots}"
            yield Shown("critical-difference", "tests", title, says, draw, "", str(ranking.shots))


def figure_files(findings: Findings) -> Iterator[tuple[str, bytes]]:
    """File name -> content: every figure as PNG and as SVG."""
    for shown in figure_set(findings):
        figure = shown.draw()
        for kind in ("png", "svg"):
            yield f"{shown.name}.{kind}", to_file(figure, kind)
