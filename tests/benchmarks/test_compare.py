"""The table's numbers, computed again from the stored AP per query."""

import itertools

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from xshot_bench.benchmarks.significance import two_way
from xshot_bench.benchmarks.store import Store

METHODS = ["clip", "prototype", "random"]


@pytest.fixture
def rows_and_ap(bench, tmp_path):
    called = bench("--methods", ",".join(METHODS), "--shots", "1,2", "--draws", "3", "--format", "json")
    store = Store(tmp_path / "results")
    ap = {
        (r.cell.method, r.cell.shots, r.cell.draw): store.average_precision(r)[["i2t", "t2i"]].to_numpy()
        for r in store.records()
    }
    return {(row["method"], row["shots"]): row for row in called.table["rows"]}, ap, called.table


def test_means_are_those_of_the_stored_queries(rows_and_ap):
    rows, ap, _ = rows_and_ap
    for (method, shots), row in rows.items():
        drawn = np.stack([ap[method, shots, draw] for draw in range(3)])
        assert row["i2t"] == pytest.approx(drawn[:, :, 0].mean())
        assert row["t2i"] == pytest.approx(drawn[:, :, 1].mean())
        assert row["mean"]["mean"] == pytest.approx(drawn.mean())
        assert row["mean"]["low"] < drawn.mean() < row["mean"]["high"]


def test_differences_are_paired_by_draw_and_query(rows_and_ap):
    rows, ap, _ = rows_and_ap
    for shots in (1, 2):
        paired = np.stack([(ap["random", shots, d] - ap["clip", shots, d]).mean(1) for d in range(3)])
        estimate = rows["random", shots]["difference"]["estimate"]
        expected = two_way(paired)
        assert (estimate["mean"], estimate["p"]) == pytest.approx((expected.mean, expected.p))
        assert rows["clip", shots]["difference"] is None


def test_holm_is_over_every_pair_of_the_whole_table(rows_and_ap):
    rows, ap, table = rows_and_ap
    asked = [(x, a, b) for x in (1, 2) for a, b in itertools.combinations(["clip", "prototype", "random"], 2)]
    raw = [two_way(np.stack([(ap[a, x, d] - ap[b, x, d]).mean(1) for d in range(3)])).p for x, a, b in asked]
    expected = dict(zip(asked, multipletests(raw, method="holm")[1], strict=True))
    assert {(p["shots"], p["first"], p["second"]): p["p_corrected"] for p in table["pairs"]} == pytest.approx(expected)
    for (method, shots), row in rows.items():
        if row["difference"]:
            assert row["difference"]["p_corrected"] == pytest.approx(expected[shots, "clip", method])


def test_only_draws_that_both_have_are_compared(bench, tmp_path):
    """A method that fails in one draw is compared on the others, and the table says how many there are."""
    plugin = tmp_path / "moody.py"
    plugin.write_text(
        "from xshot_bench.methods.base import EmbeddingMethod\n"
        "class Moody(EmbeddingMethod):\n"
        "    def fit(self, task):\n"
        "        if task.seed == 1: raise ValueError('not this draw')\n"
        "    def embed(self, x, modality): return x\n"
    )
    ask = ("--plugin", str(plugin), "--methods", "moody,clip", "--shots", "1", "--draws", "3")
    (row,) = (row for row in bench(*ask, "--format", "json").table["rows"] if row["method"] == "moody")
    assert (row["draws"], row["asked"], row["difference"]["estimate"]["draws"]) == (2, 3, 2)
    assert row["difference"]["estimate"]["mean"] == 0
    out = bench(*ask).out
    assert "moody: 2 of 3 draws; failed: ValueError: not this draw" in out
    assert "over complete pairs only: 2 draws × 16 queries." in out


def test_one_draw_makes_no_test(bench):
    called = bench("--methods", "clip,random", "--shots", "1", "--draws", "1")
    assert "One draw only" in called.out
    header = next(line for line in called.out.splitlines() if line.startswith("|") and "method" in line)
    assert "Holm" not in header


def test_two_variants_of_one_meaning_are_run_and_shown_once(bench, tmp_path):
    plugin = tmp_path / "twin.py"
    plugin.write_text(
        "from xshot_bench.methods.base import EmbeddingMethod\n"
        "class Twin(EmbeddingMethod):\n"
        "    by: float = 1.0\n"
        "    ablations = {'same': {'by': 1.0}, 'other': {'by': 2.0}}\n"
        "    def fit(self, task): ...\n"
        "    def embed(self, x, modality): return x + self.by\n"
    )
    ask = ("--plugin", str(plugin), "--methods", "twin,twin:same,twin:other", "--shots", "1", "--draws", "2")
    called = bench(*ask, "--format", "json")
    assert [row["method"] for row in called.table["rows"]] == ["twin", "twin:other"]
    assert len(list((tmp_path / "results" / "cells").glob("*.json"))) == 4


def test_tiers_and_marks_follow_from_the_pairs(rows_and_ap):
    rows, _, table = rows_and_ap
    for x in (1, 2):
        here = {method: row for (method, shots), row in rows.items() if shots == x}
        for pair in table["pairs"]:
            if pair["shots"] == x:
                shared = set(here[pair["first"]]["tier"]) & set(here[pair["second"]]["tier"])
                assert bool(shared) == (pair["p_corrected"] > 0.05)
        best = max(here.values(), key=lambda row: row["mean"]["mean"])
        assert "a" in best["tier"]
        assert here["random"]["below"] == "significantly below"  # the colours are told apart far better than by chance
        assert here["clip"]["below"] == ""


def test_benjamini_hochberg_is_less_strict(bench):
    ask = ("--methods", ",".join(METHODS), "--shots", "1,2", "--draws", "3", "--format", "json")
    holm, bh = (bench(*ask, *more).table for more in ((), ("--correction", "fdr_bh")))
    raw = [pair["estimate"]["p"] for pair in holm["pairs"]]
    assert [pair["p_corrected"] for pair in bh["pairs"]] == pytest.approx(list(multipletests(raw, method="fdr_bh")[1]))
    assert bh["correction"] == "fdr_bh"
    assert all(b["p_corrected"] <= h["p_corrected"] for b, h in zip(bh["pairs"], holm["pairs"], strict=True))


def test_what_matters_depends_on_the_margin(bench):
    ask = ("--methods", "random,clip", "--shots", "1", "--draws", "3", "--format", "json")
    (row, _) = bench(*ask).table["rows"]
    assert row["difference"]["matters"] == "different"
    (row, _) = bench(*ask, "--margin", "100").table["rows"]
    assert row["difference"]["matters"] == "equivalent"
    far = -100 * row["difference"]["estimate"]["mean"]
    (row, _) = bench(*ask, "--margin", str(far)).table["rows"]
    assert row["difference"]["matters"] == "undecided"
    assert bench(*ask, "--margin", "-1").code == 2


@pytest.mark.parametrize("gallery", ["test", "all"])
def test_chance_and_known_labels_frame_the_table(bench, gallery):
    called = bench("--methods", "random,clip", "--shots", "1", "--draws", "2", "--gallery", gallery, "--oracle",
                   "--format", "json")  # fmt: skip
    (block,) = called.table["blocks"]
    assert block["ceiling"] == 1.0
    # four target classes with as many test items each: closed form with R of N relevant
    n, r = block["gallery"], block["queries"] // 4
    first = sum(1 / i for i in range(1, n + 1)) / n
    assert block["floor"] == pytest.approx((r - 1) / (n - 1) * (1 - first) + first)
    ask = ("--methods", "random,clip", "--shots", "1", "--draws", "2")
    lines = [line for line in bench(*ask, "--oracle").out.splitlines() if line.startswith("|")]
    assert "chance" in lines[2] and "labels known" in lines[-1] and "100.0" in lines[-1]
    assert "labels known" not in bench(*ask).out


def test_known_labels_need_no_cached_features(bench, tmp_path):
    import shutil

    ask = ("--methods", "clip", "--shots", "1", "--draws", "2", "--format", "json")
    bench(*ask)
    shutil.rmtree(tmp_path / "cache")
    assert bench(*ask).code == 0 and not list((tmp_path / "cache").rglob("*.npy"))
    assert bench(*ask, "--oracle").table["blocks"][0]["ceiling"] == 1.0


def test_one_draw_is_tested_on_that_draw_and_says_so(bench):
    ask = ("--methods", "random,prototype,clip", "--shots", "1", "--draws", "1")
    table = bench(*ask, "--format", "json").table
    rows = {row["method"]: row for row in table["rows"]}
    assert not table["pairs"] and table["power"] is None and all(row["tier"] == "" for row in rows.values())
    raw = [next(iter(rows[name]["difference"]["on_draw"].values())) for name in ("random", "prototype")]
    expected = multipletests(raw, method="holm")[1]
    assert [rows[n]["difference"]["p_corrected"] for n in ("random", "prototype")] == pytest.approx(list(expected))
    out = bench(*ask).out
    assert "p, this draw" in out and "says nothing about other draws" in out and "tier" not in out.partition("±:")[0]


def test_every_test_is_printed_with_its_question(bench):
    out = bench("--methods", "random,clip", "--shots", "1", "--draws", "3", "--ladder").out
    for said in ("1 On this draw?", "2 On these queries, over draws?", "3 Over draws and queries?", "4 Across datasets",
                 "Not tested sign-flip over 3 draws: its smallest p is 0.25", "a rank test needs 6 blocks or more",
                 "With 3 draws this table can detect", "standard deviation"):  # fmt: skip
        assert said in out, said
