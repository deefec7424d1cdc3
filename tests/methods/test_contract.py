"""Every built-in method, and each of its ablation switches, passes the checks that plugins must pass."""

import importlib
from functools import partial

import pytest

from xshot_bench.tests.cases import METHOD_CHECKS

METHODS = {"random": "Random", "clip": "Clip", "prototype": "Prototype"}


def variants():
    for module, name in METHODS.items():
        cls = getattr(importlib.import_module(f"xshot_bench.methods.{module}"), name)
        yield pytest.param(cls, id=module)
        for switch, overrides in cls.ablations.items():
            yield pytest.param(partial(cls, **overrides), id=f"{module}:{switch}")


@pytest.mark.parametrize("make", list(variants()))
@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check, make):
    check(make)
