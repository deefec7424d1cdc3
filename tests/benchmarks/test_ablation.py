"""Variants: what --ablate and --sweep ask for, and that one configuration is run and shown once."""

import pytest

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import ablation, distinct, parse_variant, sweep
from xshot_bench.benchmarks.plan import variants_of
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.suite import Suite

THREE = """
from xshot_bench.methods.base import EmbeddingMethod

class Three(EmbeddingMethod):
    '''Three components and another switch.'''
    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    ablations = {"noa": {"a": 0.0}, "nob": {"b": 0.0}, "noc": {"c": 0.0}, "half": {"a": 0.5}, "same": {"a": 1.0}}
    components = ("noa", "nob", "noc")
    def fit(self, task): ...
    def embed(self, x, modality): return x + self.a + 2 * self.b + 4 * self.c
"""


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "three.py").write_text(THREE)
    return Registry([tmp_path / "three.py"])


def test_each_component_off_each_alone_all_off_and_the_other_switches(registry):
    found = ablation(registry, "three", {})
    assert [variant.name for variant in found] == [
        "three",
        "three:noa", "three:nob", "three:noc",  # each off
        "three:nob+noc", "three:noa+noc", "three:noa+nob",  # each alone
        "three:noa+nob+noc",  # all off
        "three:half", "three:same",
    ]  # fmt: skip
    alone = {variant.name: variant.build(registry).parameters() for variant in found}["three:nob+noc"]
    assert alone == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert [variant.group for variant in found] == ["methods"] + ["ablation"] * 9
    assert {variant.reference for variant in found[1:]} == {"three"}


def test_with_two_components_one_off_is_the_other_alone(registry):
    found = [variant.name for variant in ablation(Registry(), "flexclip", {})]
    assert found[:4] == ["flexclip", "flexclip:nogen", "flexclip:nofusion", "flexclip:nogen+nofusion"]
    assert len(found) == len(set(found))


def test_a_sweep_is_the_method_with_each_value(registry):
    plain, *rest = sweep(registry, "three:noa.b=0.5, 2", {"three": {"c": "7"}})
    assert (plain.name, plain.group) == ("three:noa", "methods")
    assert [variant.name for variant in rest] == ["three:noa{b=0.5}", "three:noa{b=2}"]
    assert rest[1].build(registry).parameters() == {"a": 0.0, "b": 2.0, "c": 7.0}
    assert {variant.reference for variant in rest} == {"three:noa"}


def test_braces_are_a_variants_own_parameters(registry):
    variant = parse_variant(registry, " three:noa{b=2, c = 3} ", {"three": {"b": "9", "a": "5"}})
    assert variant.name == "three:noa{b=2,c=3}"
    assert variant.build(registry).parameters() == {"a": 5.0, "b": 2.0, "c": 3.0}


def test_one_configuration_is_one_variant_with_its_other_names(registry):
    asked = [parse_variant(registry, name, {}) for name in ("three", "three:noa")]
    asked += [*ablation(registry, "three", {}), *sweep(registry, "three.a=0,0.0,1,3", {})]
    found = distinct(registry, asked)
    known = {variant.name: variant for variant in found}
    assert known["three"].also == ("three:same", "three{a=1}")
    assert known["three:noa"].also == ("three{a=0}", "three{a=0.0}")
    assert known["three:noa"].group == "ablation"  # though it was also asked for as a method
    assert "three{a=3}" in known and (len(asked), len(found)) == (17, 10)


@pytest.mark.parametrize("text", ["three", "three.a", "three.a=", "three.a=1,,2", ".a=1", "three=1", "=1", "three.=1"])
def test_a_sweep_that_cannot_be_read(registry, text):
    with pytest.raises(InputError, match="was not understood"):
        sweep(registry, text, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("three{a=1", "was not understood"),
        ("three{a}", "was not understood"),
        ("three{}", "was not understood"),
        ("three{a=1}x", "was not understood"),
        ("three{=1}", "was not understood"),
        ("three{aa=1}", "no parameter 'aa'"),
        ("three{a=x}", "cannot take a='x'"),
    ],
)
def test_braces_that_cannot_be_read(registry, text, message):
    with pytest.raises(InputError, match=message):
        parse_variant(registry, text, {}).build(registry)


def test_a_method_without_switches_cannot_be_ablated(registry):
    with pytest.raises(InputError, match="declares no switches"):
        ablation(registry, "random", {})


def test_the_program_runs_and_shows_them_once(bench, tmp_path):
    plugin = tmp_path / "three.py"
    plugin.write_text(THREE)
    ask = ("--plugin", str(plugin), "--methods", "clip", "--shots", "1", "--draws", "2", "--ablate", "three")
    ask += ("--sweep", "three.a=0,1,3")
    called = bench(*ask, "--format", "json")
    assert called.code == 0, called.err
    rows = {row["method"]: row for row in called.table["rows"]}
    assert len(rows) == len(called.table["rows"]) == 1 + 1 + 8 + 1
    assert rows["three"]["also"] == ["three:same", "three{a=1}"]
    assert rows["three"]["difference"]["baseline"] == "clip"
    assert all(row["difference"]["baseline"] == "three" for row in rows.values() if row["group"] != "methods")
    assert rows["three{a=3}"]["group"] == "sweep"
    cells = list((tmp_path / "results" / "cells").glob("*.json"))
    assert len(cells) == 2 * len(rows)
    shown = bench(*ask)
    assert "ablation of three" in shown.out and "sweep of three" in shown.out
    assert "three is also three:same, three{a=1}: run once, shown once." in shown.out
    again = bench("--plugin", str(plugin), "--methods", "three{a=3,b=1},clip", "--shots", "1", "--draws", "2",
                  "--dry-run")  # fmt: skip
    assert "4 cells: 0 new, 4 done" in again.out


def test_what_is_taken_apart_is_all_that_runs_where_no_methods_are_named(registry):
    taken = Suite.from_options({"ablate": "prototype", "sweep": ("ridge.strength=1,10",)})
    assert {variant.plugin for variant in variants_of(taken, registry)} == {"prototype", "ridge"}
    beside = Suite.from_options({"ablate": "prototype", "methods": ("clip",)})
    assert {variant.plugin for variant in variants_of(beside, registry)} == {"prototype", "clip"}
