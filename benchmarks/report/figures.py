"""The figures: made from a Comparison and its spots, for files and for the page. mAP is in %."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xshot_bench.benchmarks.comparison import Comparison, Ranking, Row
from xshot_bench.benchmarks.protocol import DIRECTIONS, Direction
from xshot_bench.benchmarks.report.figures_style import INK, MUTED, RULE, Look, drawing
from xshot_bench.benchmarks.report.spots import Spot
from xshot_bench.datasets.splitting import Shots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = Mapping[str, Look]
WIDTH = 4.6  # inches: on a phone the letters can still be read
MOST_CLASSES = 60


@drawing()
def shots_curves(comparison: Comparison, dataset: str, looks: Looks) -> Figure:
    """X against mean mAP, with its 95 % interval as a band."""
    rows = [row for row in comparison.rows if row.dataset == dataset and row.mean and row.group == "methods"]
    shots = list(dict.fromkeys(row.shots for row in rows))
    figure, axes = _figure(3.0)
    ends = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        place = [shots.index(row.shots) for row in own]
        mean, low, high = np.array([(r.mean.mean, r.mean.low, r.mean.high) for r in own if r.mean]).T * 100
        look = looks[method]
        if len(shots) == 1:
            axes.errorbar(place, mean, [mean - low, high - mean], **look.line())
        else:
            axes.plot(place, mean, **look.line())
        if look.bold:
            axes.fill_between(place, low, high, color=look.colour, alpha=0.13, lw=0)
            ends.append((float(mean[-1]), method))
    _floor(axes, comparison, dataset)
    axes.set_xticks(range(len(shots)), [str(x) for x in shots])
    axes.set_xlim(-0.15, len(shots) - 0.85)
    axes.set_xlabel("X, shots of each target class")
    axes.set_ylabel("mean mAP, %")
    axes.set_ylim(bottom=0)
    _name_ends(axes, ends, looks)
    return figure


@drawing()
def class_dots(spot: Spot, looks: Looks) -> Figure:
    """The mAP of each class, the best first by the mean of all methods; of very many, those that differ most."""
    table = 100 * spot.by_class()
    if len(table) > MOST_CLASSES:
        table = table.loc[(table.max(axis=1) - table.min(axis=1)).nlargest(MOST_CLASSES).index]
    table = table.loc[table.mean(axis=1).sort_values().index]
    figure, axes = _figure(0.9 + 0.19 * len(table))
    y = np.arange(len(table))
    axes.hlines(y, table.min(axis=1), table.max(axis=1), color=RULE, lw=3)
    for method in map(str, table):
        look = looks[method]
        style = {"ms": 5, "alpha": 0.9, "label": method} if look.bold else {"ms": 2.5, "alpha": 0.4}
        axes.plot(table[method], y, ls="", marker=look.marker, color=look.colour, **style)
    axes.set_yticks(y, [shortened(str(name), 28) for name in table.index])
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set_xlim(left=-1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mAP of the class's queries, both directions, %")
    _legend(figure)
    return figure


@drawing()
def precision_recall(spot: Spot, direction: Direction, looks: Looks) -> Figure:
    """Precision at eleven levels of recall: the highest at that recall or later, meaned over queries."""
    figure, axes = _figure(3.2)
    for method, precision in spot.precision.items():
        label = method if looks[method].bold else None
        values = 100 * precision[DIRECTIONS.index(direction)]
        axes.plot(10 * np.arange(11), values, label=label, **looks[method].line(4))
    axes.set_xlabel("recall, %")
    axes.set_ylabel("precision, %")
    axes.set_xlim(-1, 101)
    axes.set_ylim(
        0, 105 * max(float(precision.max()) for precision in spot.precision.values())
    )  # both directions alike
    _legend(figure)
    return figure


@drawing()
def cost_quality(comparison: Comparison, dataset: str, shots: Shots, looks: Looks) -> Figure:
    """Seconds of computing a cell (median) against mean mAP with its interval."""
    figure, axes = _figure(3.2)
    for row in _rows(comparison, dataset, shots):
        if row.mean and row.seconds > 0:
            look, mean = looks[row.method], 100 * row.mean.mean
            error = None if math.isnan(row.mean.high) else [[50 * (row.mean.high - row.mean.low)]] * 2
            style = {"ms": 7, "label": row.method} if look.bold else {"ms": 4, "alpha": 0.4}
            axes.errorbar(row.seconds, mean, error, fmt=look.marker, color=look.colour, elinewidth=1.2, **style)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds a cell (fit and score, median)")
    axes.set_ylabel("mean mAP, %")
    axes.xaxis.set_major_formatter("{x:g}")
    _legend(figure)
    return figure


@drawing()
def critical_difference(ranking: Ranking, looks: Looks) -> Figure:
    """Mean ranks over the blocks (Demšar 2006); a bar joins methods that Wilcoxon's tests do not tell apart."""
    import pandas as pd
    from scikit_posthocs import critical_difference_diagram

    names = list(ranking.methods)
    p = np.zeros((len(names), len(names))) if ranking.refused else np.array(ranking.p)  # no test, no bar
    p = np.clip(p, 1e-12, 1)  # the library takes 0 for no p at all
    figure, axes = _figure(1.2 + 0.24 * len(names))
    axes.grid(visible=False)
    axes.spines["top"].set(visible=True, color=MUTED)
    critical_difference_diagram(
        dict(zip(names, ranking.ranks, strict=True)),
        pd.DataFrame(p, names, names),
        ax=axes,
        color_palette={name: looks[name].colour for name in names},
        label_fmt_left="{label}  {rank:.1f}\N{NO-BREAK SPACE}",
        label_fmt_right="\N{NO-BREAK SPACE}{rank:.1f}  {label}",
        crossbar_props={"color": INK, "linewidth": 3, "alpha": 0.75},
        marker_props={"s": 24},
        elbow_props={"lw": 1.3},
        text_h_margin=0.04 * len(names),
    )
    axes.set_xticks(range(1, len(names) + 1))
    axes.set_xlim(0.5, len(names) + 0.5)
    return figure


@drawing()
def query_scatter(spot: Spot, baseline: str, method: str, looks: Looks) -> Figure:
    """AP of every query by one method against another, both directions."""
    figure, axes = _figure(4.2, width=4.2)
    first, second = (100 * spot.ap[name].ravel() for name in (baseline, method))
    axes.plot([0, 100], [0, 100], color=MUTED, lw=0.8)
    axes.scatter(first, second, s=12, color=looks[method].colour, alpha=0.45, lw=0)
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axes.set_xlabel(f"AP of a query, %: {shortened(baseline)}")
    axes.set_ylabel(f"AP of a query, %: {shortened(method)}")
    return figure


def shortened(name: str, most: int = 24) -> str:
    """The name on one line, cut where it is longer than a figure has room for."""
    line = " ".join(name.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _rows(comparison: Comparison, dataset: str, shots: Shots) -> list[Row]:
    return [r for r in comparison.rows if (r.dataset, r.shots) == (dataset, shots) and r.group == "methods"]


def _floor(axes: Axes, comparison: Comparison, dataset: str) -> None:
    for block in comparison.blocks:
        if block.dataset == dataset:
            axes.axhline(100 * block.floor, color=MUTED, lw=1, ls=(0, (1, 2)))
            axes.annotate(
                "chance", (0.2, 100 * block.floor), (0, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", color=MUTED, fontsize=8,
            )  # fmt: skip


def _legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, [shortened(name) for name in names], loc="outside upper left", frameon=False, ncols=3,
        handletextpad=0.5, columnspacing=1.2,
    )  # fmt: skip


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str]], looks: Looks) -> None:
    """The methods' names at the right ends of their lines, moved apart where they would meet."""
    low, high = axes.get_ylim()
    least = 0.055 * (high - low)
    ends = sorted(ends)
    places: list[float] = []
    for value, _ in ends:
        places.append(max(value, places[-1] + least if places else low))
    for i in reversed(range(len(places))):  # and down again where they were moved beyond the top
        places[i] = min(places[i], places[i + 1] - least if i + 1 < len(places) else high)
    for place, (_, method) in zip(places, ends, strict=True):
        axes.annotate(
            shortened(method), (1, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=looks[method].colour, annotation_clip=False,
        )  # fmt: skip
