"""Every built-in method, and each of its ablation switches, passes the checks that plugins must pass."""

from functools import partial

import pytest

from xshot_bench.methods.clip import Clip
from xshot_bench.methods.flexclip import FlexClip
from xshot_bench.methods.linear_probe import LinearProbe
from xshot_bench.methods.prototype import Prototype
from xshot_bench.methods.random import Random
from xshot_bench.tests.cases import METHOD_CHECKS

SHORT = {FlexClip: {"rounds": 3, "steps": 3, "pseudo": 4}}  # nothing checked here needs a converged method


def variants():
    for method in (Random, Clip, Prototype, LinearProbe, FlexClip):
        for switch, overrides in {"": {}, **method.ablations}.items():
            name = f"{method.__name__}:{switch}".rstrip(":")
            yield pytest.param(partial(method, **SHORT.get(method, {}) | overrides), id=name)


@pytest.mark.parametrize("make", list(variants()))
@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check, make):
    check(make)
