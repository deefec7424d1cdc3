"""The table of chosen parameters, for docs/hyperparameters.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from xshot_bench import InputError
from xshot_bench.benchmarks.store import write_atomically
from xshot_bench.benchmarks.tuning.policy import Tuned

BEGIN, END = "<!-- written by benchmarks/tune.py -->", "<!-- end -->"


def put_into(page: Path, found: Sequence[Tuned]) -> None:
    """Replace what stands between the page's two marks by the table; `InputError` where it has no such marks."""
    before, begun, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise InputError(f"{page} has no place for the table. Put two lines where it goes: {BEGIN} and {END}.")
    content = f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}"
    write_atomically(page, content.encode())


def table(found: Sequence[Tuned]) -> str:
    """Markdown: a row for each method; mAP in %, of the default before and, where it is another, of what was chosen."""
    shots = list(dict.fromkeys(x for tuned in found for x in tuned.default.scores))
    shots.sort(key=lambda x: (x == "all", x.zfill(9)))
    headers = ["method", "searched", "trials", "chosen", *(f"X = {x}" for x in shots), "mean", "s"]
    rows = [
        [
            f"`{tuned.variant.name}`",
            "; ".join(f"{name} {', '.join(map(_value, values))}" for name, values in tuned.searched.items()),
            len(tuned.trials),
            ", ".join(_chosen(tuned, name) for name in tuned.searched),
            *(_change(*(_percent(trial.means.get(x)) for trial in (tuned.before, tuned.chosen))) for x in shots),
            _change(*(_percent(tuned.score(trial)) for trial in (tuned.before, tuned.chosen))),
            f"{sum(trial.seconds for trial in tuned.trials):.0f}",
        ]
        for tuned in found
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def _chosen(tuned: Tuned, name: str) -> str:
    """The value, what it was, and a mark where it lies at an end of its numbers."""
    values, value, old = tuned.searched[name], tuned.setting[name], tuned.before.parameters[name]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    border = "\\*" if len(numbers) > 2 and value in (min(numbers), max(numbers)) else ""
    return f"{name} {_value(value)}{border}" + (f" (was {_value(old)})" if old != value else "")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"
