"""A comparison as a table: rich in a terminal, GitHub's Markdown when piped, JSON as data."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

from tabulate import tabulate

from xshot_bench.benchmarks.comparison import Comparison
from xshot_bench.benchmarks.report.columns import Column, Section, columns, compared, filled, placed, sections
from xshot_bench.benchmarks.report.notes import caption, footnotes
from xshot_bench.benchmarks.report.rungs import questions, rungs

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

LEFT = ("method", "to")
Shown = tuple[list[Column], list[list[str]]]


def markdown(comparison: Comparison, ladder: bool = False) -> str:
    """All tables in GitHub's Markdown, with captions and footnotes; the best mean of each X in bold."""
    parts: list[str] = []
    for section in sections(comparison):
        shown, lines = filled(section, columns(comparison))
        place = [column.header for column in shown].index("mean mAP")
        for row, cells in zip(section.rows, lines, strict=True):
            if placed(section, row) == 1:
                cells[place] = f"**{cells[place]}**"
        parts += [section.title or "\n".join(caption(comparison, section.dataset)), "", _github(shown, lines), ""]
    parts += footnotes(comparison)
    if ladder:
        parts += ["", "Every test", ""]
        for section in compared(comparison):
            parts += [
                f"{section.dataset} {section.title}".rstrip(),
                "",
                _github(*filled(section, rungs(comparison))),
                "",
            ]
        parts += questions(comparison)
    return "\n".join(parts)


def rich_tables(comparison: Comparison, width: int, ladder: bool = False) -> Group:
    """All tables for a terminal of ``width`` characters; the best mean of each X in bold."""
    from rich.console import Group
    from rich.text import Text

    shown: list[RenderableType] = []
    lacking: dict[str, None] = {}

    def add(title: list[str], section: Section, asked: list[Column]) -> None:
        table, missing = _rich(section, filled(section, asked), width)
        shown.extend([*(Text(line) for line in title), Text(), table, Text()])
        lacking.update(dict.fromkeys(missing))

    for section in sections(comparison):
        add([section.title] if section.title else caption(comparison, section.dataset), section, columns(comparison))
    shown += [Text(line, style="dim") for line in footnotes(comparison)]
    if ladder:
        shown.append(Text())
        for section in compared(comparison):
            add([f"Every test: {section.dataset} {section.title}".rstrip()], section, rungs(comparison))
        shown += [Text(line, style="dim") for line in questions(comparison)]
    if lacking:
        left_out = f"Left out for want of width: {', '.join(lacking)}. --format github and csv show all."
        shown.append(Text(left_out, style="dim"))
    return Group(*shown)


def to_json(comparison: Comparison) -> str:
    """The same table as data; mAP as fractions, missing numbers as null."""
    return json.dumps(_plain(dataclasses.asdict(comparison)), indent=1)


def _github(shown: list[Column], lines: list[list[str]]) -> str:
    align = ["left" if column.header in LEFT else "right" for column in shown]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    headers = [column.header for column in shown]
    return tabulate(cells, headers, tablefmt="github", colalign=align, disable_numparse=True)


def _rich(section: Section, shown: Shown, width: int) -> tuple[Table, list[str]]:
    """A table no wider than ``width`` if that can be, and the headers of the columns that it lacks for it."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    asked, lines = shown
    widths = [max(map(cell_len, (column.header, *cells))) for column, *cells in zip(asked, *lines, strict=True)]
    keep = list(range(len(asked)))

    def wide(gap: int) -> bool:
        return sum(widths[k] + gap for k in keep) - gap > width

    gap = 1 if wide(2) else 2
    for i in sorted((i for i in keep if asked[i].drop), key=lambda i: -asked[i].drop):
        if wide(gap):
            keep.remove(i)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 1, 0, 0))
    for i in keep:
        left = asked[i].header in LEFT
        table.add_column(asked[i].header, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row, cells, following in zip(section.rows, lines, [*section.rows[1:], None], strict=True):
        table.add_row(
            *(Text(cells[i]) for i in keep),
            style="bold" if placed(section, row) == 1 else "dim" if row.shots < 0 else "",
            end_section=following is None or following.shots != row.shots,
        )
    return table, [column.header for i, column in enumerate(asked) if i not in keep]


def _plain(value: object) -> object:
    """Numbers that JSON has no word for become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
