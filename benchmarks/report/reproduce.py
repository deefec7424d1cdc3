"""The command that computes a cell again, from nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from xshot_bench.benchmarks.plan import Inputs
from xshot_bench.benchmarks.records import Cell
from xshot_bench.benchmarks.suite import Suite

AGAIN = "again"  # a results folder of its own, so that the cell counts as new


def command(cell: Cell, draws: int, suite: Suite, inputs: Inputs, plugins: Sequence[Path]) -> str:
    """A line for the shell; ``draws``: how many of the split's draws it takes to come to the cell's."""
    words = ["--methods", cell.method, "--datasets", cell.dataset, "--encoder", cell.encoder]
    words += ["--shots", str(cell.shots), "--draws", str(draws), "--gallery", cell.gallery]
    for parameter, value in suite.settings.get(cell.plugin, {}).items():
        words += ["--set", f"{cell.plugin}.{parameter}={value}"]
    base = cell.dataset.partition("/")[0]
    root = inputs.roots.get(base, inputs.roots.get(""))
    words += ["--root", f"{base}={root}"] if root else []
    words += ["--skip-bad-items"] if inputs.skip_bad_items else []
    for plugin in plugins:
        words += ["--plugin", str(plugin)]
    return shlex.join(["python", "run_bench.py", *words, "--results", AGAIN])
