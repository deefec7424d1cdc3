"""The page's tables: the same columns as in a terminal, with what sorting and the bars need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xshot_bench.benchmarks.comparison import Comparison, Row
from xshot_bench.benchmarks.report.columns import Column, Section, columns, compared, placed, sections
from xshot_bench.benchmarks.report.figures_style import Look
from xshot_bench.benchmarks.report.notes import caption
from xshot_bench.benchmarks.report.rungs import rungs
from xshot_bench.benchmarks.report.spots import Findings
from xshot_bench.benchmarks.tiers import shared

WORDS = ("method", "to", "tier", "matters", "dataset", "note")


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and ``key``, what it is sorted by: a number or a text; None comes last."""

    text: str
    key: float | str | None


@dataclass(frozen=True)
class Bar:
    """A mean with its interval in % of the way from 0 to the table's highest."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Line:
    """A row of a table. place: 1 for the best of its X, 2 for the second. shots: "" in chance's row."""

    shots: str
    cells: tuple[Cell, ...]
    place: int
    look: Look | None
    bar: Bar | None


@dataclass(frozen=True)
class Table:
    """A table of the page. Its lines stand by X, the best mean first."""

    dataset: str
    title: str
    caption: tuple[str, ...]
    headers: tuple[str, ...]
    words: tuple[bool, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Verdict:
    """The best method of a dataset at one X, in words."""

    dataset: str
    shots: str
    method: str
    look: Look
    mean: str
    half: str
    against: str
    ties: tuple[str, ...]


def leaderboards(findings: Findings) -> Iterator[Table]:
    """For each dataset the methods, then its ablations and sweeps."""
    comparison = findings.comparison
    for section in sections(comparison):
        first, *others = caption(comparison, section.dataset)
        above = () if section.title else (first.removeprefix(f"{section.dataset} · "), *others)
        asked = columns(comparison)
        mean = next(column for column in asked if column.header == "mean mAP")
        asked.insert(2, asked.pop(asked.index(mean)))  # what is looked for first stands first, on a phone too
        yield _table(findings, section, asked, section.title or section.dataset, above)


def ladders(findings: Findings) -> Iterator[Table]:
    """Every test behind each difference."""
    for section in compared(findings.comparison):
        title = f"{section.dataset}, {section.title}" if section.title else section.dataset
        yield _table(findings, section, rungs(findings.comparison), title, ())


def verdicts(findings: Findings) -> Iterator[Verdict]:
    """One for each dataset and X that has a number."""
    comparison = findings.comparison
    for dataset in comparison.datasets:
        rows = [r for r in comparison.rows if r.dataset == dataset and r.group == "methods" and r.mean]
        for shots in dict.fromkeys(row.shots for row in rows):
            own = [row for row in rows if row.shots == shots]
            best = max(own, key=_mean)
            half = 50 * (best.mean.high - best.mean.low) if best.mean else math.nan
            yield Verdict(
                dataset=dataset,
                shots=str(shots),
                method=best.method,
                look=findings.looks[best.method],
                mean=f"{100 * _mean(best):.1f}",
                half="" if math.isnan(half) else f"{half:.1f}",
                against=_against(comparison, best),
                ties=tuple(r.method for r in own if r is not best and shared(r.tier, best.tier)),
            )


def _against(comparison: Comparison, row: Row) -> str:
    if not row.difference:
        return f"nothing beats {row.method}" if row.method == comparison.baseline else ""
    estimate = row.difference.estimate
    return f"{100 * estimate.mean:+.1f} ± {50 * (estimate.high - estimate.low):.1f} on {row.difference.baseline}"


def _table(findings: Findings, section: Section, asked: Sequence[Column], title: str, above: tuple[str, ...]) -> Table:
    shown = [column for column in asked if any(column.cell(row) for row in section.rows)]
    order = {str(x): i for i, x in enumerate(findings.plan.suite.shots)}
    rows = sorted(section.rows, key=lambda row: (order.get(str(row.shots), -1), -_mean(row)))
    highest = max((row.mean.high for row in rows if row.mean and not math.isnan(row.mean.high)), default=1.0)
    return Table(
        dataset=section.dataset,
        title=title,
        caption=above,
        headers=tuple(column.header for column in shown),
        words=tuple(column.header in WORDS for column in shown),
        lines=tuple(
            Line(
                shots=str(row.shots) if str(row.shots) in order else "",
                cells=tuple(Cell(column.cell(row), _key(column.header, row, column.cell(row))) for column in shown),
                place=placed(section, row),
                look=findings.looks.get(row.method),
                bar=_bar(row, highest),
            )
            for row in rows
        ),
    )


def _mean(row: Row) -> float:
    return row.mean.mean if row.mean else -math.inf


def _bar(row: Row, highest: float) -> Bar | None:
    if row.mean is None or math.isnan(row.mean.high):
        return None
    return Bar(*(round(min(max(100 * v / highest, 0), 100), 2) for v in (row.mean.low, row.mean.mean, row.mean.high)))


def _key(header: str, row: Row, text: str) -> float | str | None:
    """What a cell is sorted by: the number behind it, or else its text."""
    difference = row.difference
    mean = row.mean.mean if row.mean else None
    numbers = {"i2t": row.i2t, "t2i": row.t2i, "top-1": row.accuracy, "mean mAP": mean, "s/cell": row.seconds}
    if header in numbers:
        value = numbers[header]
        return None if value is None or math.isnan(value) else value
    if header == "difference":
        return difference.estimate.mean if difference else None
    if header.startswith("p "):
        return difference.p_corrected if difference else None
    if header == "X" and isinstance(row.shots, int):
        return row.shots
    return text or None
