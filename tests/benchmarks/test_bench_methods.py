"""The table of costs: of what is measured, and what is over its limit."""

import subprocess
import sys

import pytest

from xshot_bench.benchmarks.bench_methods import UNTRAINED, row
from xshot_bench.benchmarks.registry import Registry

COST = {"fit": 0.5, "score": 0.25, "cpu": 0.75, "extra": 10.4, "peak": 700.0}


def test_what_is_over_its_limit_is_marked():
    assert row("cca", COST) == ["cca", "0.50", "0.25", "0.75", "10", "700", ""]
    assert row("cca", COST | {"cpu": 1.01})[-1] == "! 1 s"
    assert row("flexclip:nogen", COST | {"cpu": 9.9})[-1] == ""
    assert row("flexclip", COST | {"cpu": 10.1, "peak": 2049.0})[-1] == "! 10 s ! 2 GB"
    assert row("coop", {"reason": "declined: needs the encoder"})[-1] == "declined: needs the encoder"


def test_methods_with_the_shorter_limit_are_there():
    assert {entry.name for entry in Registry().of("method")} >= UNTRAINED


@pytest.mark.slow
def test_every_method_given_is_measured_in_a_process_of_its_own():
    call = [sys.executable, "-m", "xshot_bench.benchmarks.bench_methods", "clip", "linear_probe", "--shots", "0"]
    lines = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|") for line in lines[2:]}
    assert float(cells["clip"][6]) > 100  # MB: the interpreter with torch
    assert "declined" in cells["linear_probe"][7]
