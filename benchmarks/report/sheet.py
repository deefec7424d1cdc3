"""A comparison as CSV: one line a row, every number in full, mAP as fractions."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from xshot_bench.benchmarks.comparison import Comparison, Row
from xshot_bench.benchmarks.report.columns import sections
from xshot_bench.benchmarks.significance import ALPHA

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what makes a spreadsheet compute a cell instead of showing it


def to_csv(comparison: Comparison) -> str:
    """All rows, chance and known labels among them; a missing value is an empty cell."""
    landmarks = [row for section in sections(comparison) for row in section.rows if row.shots is None]
    lines = [line(comparison, row) for row in (*comparison.rows, *landmarks)]
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in one.items()} for one in lines)
    return text.getvalue()


def line(comparison: Comparison, row: Row) -> dict[str, Any]:
    """Everything that is known of a row, by column."""
    mean, difference = row.mean, row.difference
    block = next((block for block in comparison.blocks if block.dataset == row.dataset), None)
    estimate, effect = (difference.estimate, difference.effect) if difference else (None, None)
    p = difference.p_corrected if difference else None
    return {
        "dataset": row.dataset,
        "encoder": block.encoder if block else comparison.encoder,
        "protocol": comparison.protocol,
        "gallery": comparison.gallery,
        "split": block and block.split,
        "shots": row.shots,
        "method": row.method,
        "group": row.group,
        "also": " ".join(row.also),
        "draws": row.draws,
        "draws_asked": row.asked,
        "i2t": row.i2t,
        "t2i": row.t2i,
        "accuracy": row.accuracy,
        "mean": mean and mean.mean,
        "mean_low": mean and mean.low,
        "mean_high": mean and mean.high,
        "draw_sd": row.draw_sd,
        "tier": row.tier,
        "below_zero_shot": row.below,
        "baseline": difference and difference.baseline,
        "difference": estimate and estimate.mean,
        "difference_low": estimate and estimate.low,
        "difference_high": estimate and estimate.high,
        "bootstrap_low": difference and difference.bootstrap[0],
        "bootstrap_high": difference and difference.bootstrap[1],
        "draws_compared": estimate and estimate.draws,
        "queries_compared": estimate and estimate.queries,
        "d_z": effect and effect.d_z,
        "draws_won": effect and effect.draws_won,
        "queries_better": effect and effect.wins,
        "queries_same": effect and effect.ties,
        "queries_worse": effect and effect.losses,
        "p_over": estimate and estimate.over,
        "p": estimate.p if difference and estimate and difference.tested else None,
        "p_corrected": p,
        "correction": comparison.correction,
        "significant": None if p is None else "yes" if p <= ALPHA else "no",
        "margin": comparison.margin,
        "matters": difference and difference.matters,
        "seconds": row.seconds,
        "failed": row.failed,
        "reason": row.reason,
    }


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ").replace("\n", " ")
    return value
