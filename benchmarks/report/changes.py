"""Two sets of results side by side, as text and as data."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xshot_bench.benchmarks.report.columns import CORRECTIONS, MATTERS, interval, percent, starred
from xshot_bench.benchmarks.report.grid import Grid, github, terminal
from xshot_bench.benchmarks.report.table import plain
from xshot_bench.benchmarks.side_by_side import Change, Judging

if TYPE_CHECKING:
    from rich.console import Group

STYLES = {"better": "green", "worse": "red", "same": "", "identical": "dim"}


def markdown(changes: Sequence[Change], judging: Judging) -> str:
    """The table in GitHub's Markdown, and what its words mean."""
    return "\n".join([github(_grid(changes, judging)), "", *_notes(changes, judging)])


def rich_table(changes: Sequence[Change], judging: Judging, width: int) -> Group:
    """The same for a terminal of ``width`` characters."""
    from rich.console import Group
    from rich.text import Text

    table, missing = terminal(_grid(changes, judging), width)
    notes = _notes(changes, judging)
    if missing:
        notes.append(f"Left out for want of width: {', '.join(missing)}. --format github shows all.")
    return Group(table, Text(), *(Text(note, style="dim") for note in notes))


def to_json(changes: Sequence[Change]) -> str:
    """The changes as data; mAP as fractions, missing numbers as null."""
    return json.dumps(plain([dataclasses.asdict(change) for change in changes]), indent=1)


def _grid(changes: Sequence[Change], judging: Judging) -> Grid:
    return Grid(
        headers=("dataset", "X", "method", "A", "B", "B - A", f"p {CORRECTIONS[judging.correction]}",
                 "B is", "matters", "changed", "note"),
        drop=(1, 0, 0, 2, 2, 0, 3, 0, 4, 5, 6),
        lines=[_line(change) for change in changes],
        styles=[STYLES.get(change.verdict, "yellow") for change in changes],
        groups=[(change.key.dataset, change.key.shots) for change in changes],
    ).without_empty()  # fmt: skip


def _line(change: Change) -> list[str]:
    key, to = change.key, change.difference
    tested = change.verdict in ("better", "worse", "same")
    return [
        key.dataset,
        str(key.shots),
        key.method,
        percent(change.a),
        percent(change.b),
        interval(to.estimate, "+") if to else "",
        starred(to.p_corrected) if to and tested else "",
        change.verdict,
        MATTERS[to.matters] if to and tested else "",
        " ".join(change.changed),
        change.note,
    ]


def _notes(changes: Sequence[Change], judging: Judging) -> list[str]:
    counts = Counter(change.verdict for change in changes)
    one_draw = any(change.difference and not change.difference.tested for change in changes)
    tests = sum(counts[verdict] for verdict in ("better", "worse", "same"))
    notes = [
        f"{len(changes)} cells: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".",
        f"mAP in %, mean of both directions. better, worse: significant at 5 % by the crossed two-way test over draws "
        f"and queries, paired, corrected over the {tests} cells that differ; same: not told apart; identical: every AP "
        "is the same.",
        f"matters: the interval lies beyond ±{100 * judging.margin:g} mAP (yes), within (no), or across (open).",
    ]
    if one_draw:
        notes.append("A cell with one draw in both is tested over its queries only: it says nothing about other draws.")
    return notes
