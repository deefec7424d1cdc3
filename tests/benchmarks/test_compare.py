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
    called = bench(
        "--plugin", str(plugin), "--methods", "moody,clip", "--shots", "1", "--draws", "3", "--format", "json"
    )
    (row,) = (row for row in called.table["rows"] if row["method"] == "moody")
    assert (row["draws"], row["asked"], row["difference"]["estimate"]["draws"]) == (2, 3, 2)
    assert row["difference"]["estimate"]["mean"] == 0


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
