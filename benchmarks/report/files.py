"""The files that an invocation leaves: its tables for people, and for MLflow's interface as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xshot_bench.benchmarks.comparison import Comparison
from xshot_bench.benchmarks.report import table
from xshot_bench.benchmarks.report.latex import to_latex
from xshot_bench.benchmarks.report.sheet import line, to_csv

FIRST = ("dataset", "shots", "method", "mean", "mean_low", "mean_high", "tier", "difference", "p_corrected")


def table_files(comparison: Comparison) -> dict[str, str]:
    """File name -> content. What lies in ``tables/`` is laid out as MLflow's ``log_table`` has it."""
    return {
        "table.md": table.markdown(comparison, ladder=True),
        "table.json": table.to_json(comparison),
        "table.csv": to_csv(comparison),
        "table.tex": to_latex(comparison),
        **dict(_tables(comparison)),
    }


def _tables(comparison: Comparison) -> Iterator[tuple[str, str]]:
    tests = [
        {"dataset": p.dataset, "shots": p.shots, "first": p.first, "second": p.second, "difference": p.estimate.mean,
         "low": p.estimate.low, "high": p.estimate.high, "p": p.estimate.p, "p_corrected": p.p_corrected}
        for p in comparison.pairs
    ]  # fmt: skip
    methods, others = (
        [line(comparison, r) for r in comparison.rows if (r.group == "methods") == own] for own in (1, 0)
    )
    for name, lines in (("significance", tests), ("methods", methods), ("ablation", others)):
        if lines:
            yield f"tables/{name}.json", _as_logged(lines)


def _as_logged(lines: Sequence[Mapping[str, Any]]) -> str:
    import pandas as pd

    frame = pd.DataFrame(lines, dtype=object).dropna(axis="columns", how="all")
    frame = frame[sorted(frame, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))]
    text: str = frame.to_json(orient="split", index=False)
    return text
