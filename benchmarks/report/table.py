"""A comparison as a table: rich in a terminal, GitHub's Markdown when piped, JSON as data."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from xshot_bench.benchmarks.comparison import Comparison
from xshot_bench.benchmarks.report.columns import Column, Section, columns, compared, grid, sections
from xshot_bench.benchmarks.report.grid import github, terminal
from xshot_bench.benchmarks.report.notes import caption, footnotes
from xshot_bench.benchmarks.report.rungs import questions, rungs

if TYPE_CHECKING:
    from rich.console import Group, RenderableType


def markdown(comparison: Comparison, ladder: bool = False) -> str:
    """All tables in GitHub's Markdown, with captions and footnotes; the best mean of each X in bold."""
    parts: list[str] = []
    for section in sections(comparison):
        table = grid(section, columns(comparison))
        place = list(table.headers).index("mean mAP")
        lines = [
            [f"**{cell}**" if style == "bold" and i == place else cell for i, cell in enumerate(line)]
            for line, style in zip(table.lines, table.styles, strict=True)
        ]
        title = section.title or "\n".join(caption(comparison, section.dataset))
        parts += [title, "", github(replace(table, lines=lines)), ""]
    parts += footnotes(comparison)
    if ladder:
        parts += ["", "Every test", ""]
        for section in compared(comparison):
            title = f"{section.dataset} {section.title}".rstrip()
            parts += [title, "", github(grid(section, rungs(comparison))), ""]
        parts += questions(comparison)
    return "\n".join(parts)


def rich_tables(comparison: Comparison, width: int, ladder: bool = False) -> Group:
    """All tables for a terminal of ``width`` characters; the best mean of each X in bold."""
    from rich.console import Group
    from rich.text import Text

    shown: list[RenderableType] = []
    lacking: dict[str, None] = {}

    def add(title: list[str], section: Section, asked: list[Column]) -> None:
        table, missing = terminal(grid(section, asked), width)
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
    return json.dumps(plain(dataclasses.asdict(comparison)), indent=1)


def plain(value: object) -> object:
    """Numbers that JSON has no word for become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
