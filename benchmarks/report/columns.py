"""The columns of the tables that people read, and the sections that the rows fall into."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from xshot_bench.benchmarks.comparison import Block, Comparison, Row
from xshot_bench.benchmarks.protocol import RECALLS
from xshot_bench.benchmarks.report.grid import Grid
from xshot_bench.benchmarks.significance import ALPHA, Estimate

MARKS = {"": "", "below": " ↓", "significantly below": " ⇓"}
MATTERS = {"different": "yes", "equivalent": "no", "undecided": "open", None: ""}
CORRECTIONS = {"holm": "Holm", "fdr_bh": "BH"}


@dataclass(frozen=True)
class Column:
    """header: what stands over it. cell: what a row has in it. drop: the larger, the sooner a narrow table lacks it."""

    header: str
    cell: Callable[[Row], str]
    drop: int = 0


@dataclass(frozen=True)
class Section:
    """Rows that stand under one heading: the methods on a dataset, or what an ablation or sweep made of one."""

    title: str
    dataset: str
    rows: tuple[Row, ...]


def columns(comparison: Comparison) -> list[Column]:
    """All columns; those that are empty in every row of a section are left out by `grid`."""
    one_draw = all(row.asked == 1 for row in comparison.rows)
    own = {
        "kshot": [Column("top-1", lambda row: percent(row.accuracy), 2)],
        "instance": [Column(_recall_header(name), partial(_recall, name), 2) for name in RECALLS],
    }
    p = "p, this draw" if one_draw else f"p {CORRECTIONS[comparison.correction]}"
    return [
        Column("X", lambda row: str(row.shots) if row.shots is not None else ""),
        Column("method", lambda row: row.method + MARKS[row.below]),
        Column("i2t", lambda row: percent(row.i2t), 3),
        Column("t2i", lambda row: percent(row.t2i), 3),
        *own.get(comparison.protocol, []),
        Column("mean mAP", lambda row: interval(row.mean) if row.mean else "failed" if row.failed else "–"),
        Column("tier", lambda row: row.tier, 1),
        Column("difference", lambda row: interval(row.difference.estimate, "+") if row.difference else ""),
        Column(p, lambda row: starred(row.difference.p_corrected) if row.difference else "", 1),
        Column("matters", lambda row: MATTERS[row.difference.matters] if row.difference else "", 2),
        Column("s/cell", lambda row: "" if math.isnan(row.seconds) else f"{row.seconds:.2f}", 4),
    ]


def sections(comparison: Comparison) -> Iterator[Section]:
    """For each dataset: its methods between chance and known labels, then each ablation and sweep, reference first."""
    for dataset in comparison.datasets:
        rows = [row for row in comparison.rows if row.dataset == dataset]
        methods = [row for row in rows if row.group == "methods"]
        block = next((block for block in comparison.blocks if block.dataset == dataset), None)
        yield Section("", dataset, (*_landmarks(block, "chance"), *methods, *_landmarks(block, "labels known")))
        for group, reference in dict.fromkeys((row.group, row.reference) for row in rows if row not in methods):
            own = [row for row in rows if (row.group, row.reference) == (group, reference)]
            shown = [
                row
                for shots in dict.fromkeys(row.shots for row in own)
                for row in (*_plain(r for r in rows if r.method == reference), *own)
                if row.shots == shots
            ]
            yield Section(f"{group} of {reference}", dataset, tuple(shown))


def grid(section: Section, asked: Sequence[Column]) -> Grid:
    """The section as a grid of those of the columns that say something about it; the best of each X in bold."""
    return Grid(
        headers=[column.header for column in asked],
        drop=[column.drop for column in asked],
        lines=[[column.cell(row) for column in asked] for row in section.rows],
        styles=["bold" if placed(section, row) == 1 else "dim" if row.shots is None else "" for row in section.rows],
        groups=[row.shots for row in section.rows],
    ).without_empty()


def compared(comparison: Comparison) -> Iterator[Section]:
    """The sections without the rows that are compared with nothing."""
    for section in sections(comparison):
        rows = tuple(row for row in section.rows if row.difference)
        if rows:
            yield replace(section, rows=rows)


def placed(section: Section, row: Row) -> int:
    """1 for the highest mean of the row's X in this section, 2 for the second highest, else 0."""
    means = {r.mean.mean for r in section.rows if r.mean and r.shots == row.shots is not None}
    first_two = sorted(means, reverse=True)[:2]
    return first_two.index(row.mean.mean) + 1 if row.mean and row.mean.mean in first_two else 0


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def interval(estimate: Estimate, sign: str = "") -> str:
    """``12.3 ± 1.2`` in mAP points; without ± where there is no interval."""
    mean = f"{round(100 * estimate.mean, 1) + 0.0:{sign}.1f}"  # the sum makes -0.0 a 0.0
    half = 50 * (estimate.high - estimate.low)
    return mean if math.isnan(half) else f"{mean} ± {half:.1f}"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def starred(p: float | None) -> str:
    return p_value(p) + ("*" if p is not None and p <= ALPHA else "")


def _plain(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that others are compared with, without what belongs to another table."""
    return (replace(row, difference=None, tier="") for row in rows)


def _recall(name: str, row: Row) -> str:
    return percent(row.recall.get(name, math.nan))


def _recall_header(name: str) -> str:
    """``i2t/R_1`` as ``i2t R@1``."""
    return name.replace("/", " ").replace("_", "@")


def _landmarks(block: Block | None, name: str) -> Iterator[Row]:
    """A row for what needs no method: the mAP of chance, or of known labels."""
    value = None if block is None else block.floor if name == "chance" else block.ceiling
    if block and value is not None:
        exact = Estimate(value, math.nan, 0, math.nan, math.nan, None, 0, block.queries, "nothing")
        i2t, t2i = block.floors if name == "chance" else (value, value)
        yield Row(block.dataset, None, name, 0, 0, i2t=i2t, t2i=t2i, mean=exact)
