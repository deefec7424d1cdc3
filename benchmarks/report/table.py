"""A comparison as a table: rich in a terminal, GitHub's Markdown when piped, JSON as data."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from xshot_bench.benchmarks.comparison import Comparison, Row
from xshot_bench.benchmarks.protocol import GALLERIES
from xshot_bench.benchmarks.significance import Estimate

if TYPE_CHECKING:
    from rich.console import Group

HEADERS = ("X", "method", "i2t", "t2i", "mean mAP", "difference", "p", "p Holm", "s/cell")


def caption(comparison: Comparison, dataset: str) -> list[str]:
    """What the numbers of a dataset's table mean, line by line."""
    draws = max(row.asked for row in comparison.rows)
    lines = [f"{dataset} · encoder {comparison.encoder} · mAP@all in %, relevant = same class, {draws} draws"]
    for block in comparison.blocks:
        if block.dataset == dataset:
            left_out = f", {block.left_out} left out (nothing relevant)" if block.left_out else ""
            lines += [
                f"{block.queries} queries{left_out}, {block.gallery} gallery items: "
                f"{GALLERIES[comparison.gallery]} (gallery {comparison.gallery!r})",
                f"split {block.split[:16]} · a random ranking is expected at {100 * block.floor:.1f}",
            ]
    return lines


def footnotes(comparison: Comparison) -> list[str]:
    """How the numbers were tested, and which rows to read with care."""
    differences = [row.difference for row in comparison.rows if row.difference]
    lines = ["±: half of the 95 % interval over draws and queries."]
    if differences:
        to = " or ".join(dict.fromkeys(d.baseline for d in differences))
        tested = sum(d.p_corrected is not None for d in differences)
        lines.append(
            f"Difference: paired, to {to} at the same X; p: two-way test over draws and queries; "
            f"Holm: over the {tested} tests of this table."
        )
    elif all(row.method != comparison.baseline for row in comparison.rows):
        lines.append(f"No differences: {comparison.baseline} is not among the methods of this run.")
    if any(row.mean and row.mean.over == "queries" for row in comparison.rows):
        lines.append(
            "One draw only: its intervals are over queries, and no test over draws can be made. Use --draws 5."
        )
    for row in comparison.rows:
        if row.reason:
            lines.append(f"{row.dataset} X={row.shots} {row.method}: {row.draws} of {row.asked} draws; {row.reason}")
    return lines


def cells_of(row: Row) -> list[str]:
    """The printed cells of a row, in the order of ``HEADERS``."""
    difference = row.difference
    tested = difference is not None and difference.estimate.over != "queries"
    return [
        str(row.shots),
        row.method,
        _percent(row.i2t),
        _percent(row.t2i),
        _interval(row.mean) if row.mean else "failed" if row.failed else "–",
        _interval(difference.estimate, signed=True) if difference else "",
        _p(difference.estimate.p) if difference and tested else "",
        _p(difference.p_corrected) if difference and tested else "",
        "" if math.isnan(row.seconds) else f"{row.seconds:.2f}",
    ]


def markdown(comparison: Comparison) -> str:
    """All tables in GitHub's Markdown, with captions and footnotes."""
    parts: list[str] = []
    for dataset, rows in _by_dataset(comparison):
        headers, columns = _filled(rows)
        align = ["left" if header == "method" else "right" for header in headers]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in columns]
        parts += ["\n".join(caption(comparison, dataset)), ""]
        parts += [tabulate(cells, headers, tablefmt="github", colalign=align, disable_numparse=True), ""]
    return "\n".join([*parts, *footnotes(comparison)])


def rich_tables(comparison: Comparison) -> Group:
    """All tables for a terminal; the best mean of each X in bold."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[Table | Text] = []
    for dataset, rows in _by_dataset(comparison):
        headers, columns = _filled(rows)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for header in headers:
            table.add_column(header, justify="left" if header == "method" else "right", no_wrap=True)
        for row, cells, following in zip(rows, columns, [*rows[1:], None], strict=True):
            best = max((r.mean.mean for r in rows if r.mean and r.shots == row.shots), default=math.inf)
            style = "bold" if row.mean and row.mean.mean >= best else ""
            table.add_row(
                *(Text(cell) for cell in cells),
                style=style,
                end_section=following is None or following.shots != row.shots,
            )
        shown += [Text(line) for line in caption(comparison, dataset)]
        shown.append(table)
    shown += [Text(line, style="dim") for line in footnotes(comparison)]
    return Group(*shown)


def to_json(comparison: Comparison) -> str:
    """The same table as data; mAP as fractions, missing numbers as null."""
    return json.dumps(_plain(dataclasses.asdict(comparison)), indent=1)


def _by_dataset(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    names = dict.fromkeys(row.dataset for row in comparison.rows)
    return [(name, [row for row in comparison.rows if row.dataset == name]) for name in names]


def _filled(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells without the columns that are empty in every row."""
    cells = [cells_of(row) for row in rows]
    keep = [i for i in range(len(HEADERS)) if any(row[i] for row in cells)]
    return [HEADERS[i] for i in keep], [[row[i] for i in keep] for row in cells]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _interval(estimate: Estimate, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{100 * estimate.mean:{sign}.1f} ± {50 * (estimate.high - estimate.low):.1f}"


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def _plain(value: object) -> object:
    """Numbers that JSON has no word for become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
