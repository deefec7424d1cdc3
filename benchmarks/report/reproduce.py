"""The command that computes a cell again, from nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from xshot_bench.benchmarks.plan import Inputs
from xshot_bench.benchmarks.records import Cell
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.datasets.feature_cache import FeatureOptions

USUAL_GRID = 7  # of the command line's --token-grid
AGAIN = "again"  # a results folder of its own, so that the cell counts as new


def command(cell: Cell, draws: int, suite: Suite, inputs: Inputs, plugins: Sequence[Path]) -> str:
    """A line for the shell; ``draws``: how many of the split's draws it takes to come to the cell's."""
    words = ["--methods", cell.method, "--datasets", cell.dataset, "--encoder", suite.encoder]
    words += ["--protocol", suite.protocol, "--shots", str(cell.shots), "--draws", str(draws)]
    words += ["--gallery", cell.gallery, *_features(inputs.wanted)]
    for parameter, value in suite.settings.get(cell.plugin, {}).items():
        words += ["--set", f"{cell.plugin}.{parameter}={value}"]
    base = cell.dataset.partition("/")[0]
    root = inputs.roots.get(base, inputs.roots.get(""))
    words += ["--root", f"{base}={root}"] if root else []
    words += ["--skip-bad-items"] if inputs.skip_bad_items else []
    for plugin in plugins:
        words += ["--plugin", str(plugin)]
    return shlex.join(["python", "run_bench.py", *words, "--results", AGAIN])


def _features(wanted: FeatureOptions) -> list[str]:
    """What is asked of the features, where it is not what a run asks by itself."""
    usual = FeatureOptions(tokens=USUAL_GRID)
    words = ["--token-grid", str(wanted.tokens)] if wanted.tokens != usual.tokens else []
    words += ["--views", str(wanted.views)] if wanted.views != usual.views else []
    return words + (["--ensemble", wanted.ensemble] if wanted.ensemble != usual.ensemble else [])
