"""The ladder of tests behind each difference: every rung with the question that it answers."""

from __future__ import annotations

import math
from collections.abc import Callable

from xshot_bench.benchmarks.comparison import Comparison, Difference, Row
from xshot_bench.benchmarks.report.columns import CORRECTIONS, Column, p_value, starred
from xshot_bench.benchmarks.report.notes import ranked


def rungs(comparison: Comparison) -> list[Column]:
    """The columns of the ladder; rows without a difference have none of them."""
    return [
        Column("X", lambda row: str(row.shots)),
        Column("method", lambda row: row.method),
        Column("to", _of(lambda d: d.baseline), 8),
        Column("difference", _of(lambda d: f"{100 * d.estimate.mean:+.1f}")),
        Column("95 % interval", _of(lambda d: _between(d.estimate.low, d.estimate.high))),
        Column("bootstrap", _of(lambda d: _between(*d.bootstrap)), 2),
        Column("d_z", _of(lambda d: "–" if math.isnan(d.effect.d_z) else f"{d.effect.d_z:.2f}"), 1),
        Column("draws won", _of(lambda d: f"{100 * d.effect.draws_won:.0f} %"), 5),
        Column("better/same/worse", _of(lambda d: f"{d.effect.wins}/{d.effect.ties}/{d.effect.losses}"), 6),
        Column("1 draw", _of(_on_draw), 3),
        Column("2 draws", _of(lambda d: p_value(d.over_draws)), 4),
        Column("3 both", _of(lambda d: p_value(d.estimate.p) if d.tested else "–")),
        Column(
            f"3 {CORRECTIONS[comparison.correction]}",
            _of(lambda d: starred(d.p_corrected) if d.tested else "–"),
        ),
    ]


def questions(comparison: Comparison) -> list[str]:
    """What each rung answers, and which could not be asked."""
    refused = dict.fromkeys(reason for row in comparison.rows if row.difference for reason in row.difference.refused)
    return [
        "1 On this draw? p of the sign-flip test over the queries of a draw, from the smallest to the largest.",
        "2 On these queries, over draws? p of the sign-flip test over the draws' means.",
        "3 Over draws and queries? p of the crossed two-way test: the headline; its interval beside that of a bootstrap"
        " over draws and queries.",
        "4 Across datasets and class splits? Friedman's test over blocks, then Wilcoxon's of each pair:",
        *(f"  {line}" for line in ranked(comparison.rankings)),
        "d_z: mean over standard deviation of the queries' differences. draws won: share of draws with the higher mAP. "
        "better/same/worse: queries.",
        *(f"Not tested {reason}." for reason in refused),
    ]


def _of(cell: Callable[[Difference], str]) -> Callable[[Row], str]:
    return lambda row: cell(row.difference) if row.difference else ""


def _between(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _on_draw(difference: Difference) -> str:
    smallest, largest = (p_value(pick(difference.on_draw.values())) for pick in (min, max))
    return smallest if smallest == largest else f"{smallest}–{largest}"
