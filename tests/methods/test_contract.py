"""Every method of the folder, and each of its ablation switches, passes the checks that plugins must pass."""

from functools import partial

import pytest
from cases import METHOD_CHECKS

from xshot_bench.benchmarks.registry import Registry

SHORT = {"flexclip": {"rounds": 3, "steps": 3, "pseudo": 4}}  # nothing checked here needs a converged method


def variants():
    registry = Registry()
    for entry in registry.of("method"):
        method = registry.load("method", entry.name)
        for switch, overrides in {"": {}, **method.ablations}.items():
            name = f"{entry.name}:{switch}".rstrip(":")
            yield pytest.param(partial(method, **SHORT.get(entry.name, {}) | overrides), id=name)


@pytest.mark.parametrize("make", list(variants()))
@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check, make):
    check(make)
