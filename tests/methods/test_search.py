"""Every method says what may be chosen, and docs/hyperparameters.md what was."""

import re
from pathlib import Path

import pytest

from xshot_bench.benchmarks.ablation import parse_variant
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.report.hyperparameters import BEGIN, END
from xshot_bench.benchmarks.tuning.policy import search_of, settings

REGISTRY = Registry()
METHODS = [entry.name for entry in REGISTRY.of("method")]
FIXED = {"clip"}  # the baseline: its parameter is a switch
PAGE = (Path(__file__).resolve().parents[2] / "docs/hyperparameters.md").read_text()
TABLE = PAGE.partition(BEGIN)[2].partition(END)[0]
ROWS = {cells[1].strip(" `"): cells for line in TABLE.splitlines() if len(cells := line.split("|")) > 5}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_parameters_says_what_may_be_chosen(name):
    variant = parse_variant(REGISTRY, name, {})
    parameters, search = variant.build(REGISTRY).parameters(), search_of(variant, REGISTRY)  # the default is in it
    assert bool(search) == (bool(parameters) and name not in FIXED)
    for values in search.values():
        assert len(set(values)) == len(values) > 1
    assert {type(one.build(REGISTRY)) for one in settings(variant, REGISTRY)} == {REGISTRY.load("method", name)}


SEARCHED = [name for name in METHODS if REGISTRY.load("method", name).search]


@pytest.mark.parametrize("name", SEARCHED)
def test_the_page_has_what_was_chosen_and_the_method_has_it_too(name):
    """If this fails: python -m xshot_bench.benchmarks.tune --all --write docs/hyperparameters.md."""
    assert name in ROWS, f"{name} was not tuned"
    variant = parse_variant(REGISTRY, name, {})
    parameters, search = variant.build(REGISTRY).parameters(), search_of(variant, REGISTRY)
    assert int(ROWS[name][3]) == len(settings(variant, REGISTRY))
    chosen = dict(re.findall(r"(\w+) ([\w.+-]+)", re.sub(r"\(was [^)]*\)|\\\*", "", ROWS[name][4])))
    shown = {key: f"{v:g}" if isinstance(v := parameters[key], float) else str(v) for key in search}
    assert chosen == shown
