"""Ranks across blocks against scipy and scikit-posthocs, and the tests that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats

from xshot_bench.benchmarks.blocks import rank, rankings
from xshot_bench.benchmarks.comparison import Row

METHODS = ["ok", "good", "bad"]


def scores(blocks: int, seed: int = 0) -> np.ndarray:
    """``good`` is best in every block, the other two are alike."""
    rng = np.random.default_rng(seed)
    return rng.random((blocks, 1)) + np.array([0.0, 0.5, 0.0]) + 0.1 * rng.random((blocks, 3))


def named(blocks: int) -> list[str]:
    return [f"b{i}" for i in range(blocks)]


def test_ranks_and_tests_are_those_of_peers() -> None:
    values = scores(10)
    found = rank(1, named(10), METHODS, values)
    assert found.refused == ""
    assert found.methods[0] == "good" and found.ranks[0] == 1
    expected = stats.rankdata(-values, axis=1).mean(axis=0)
    assert dict(zip(found.methods, found.ranks, strict=True)) == pytest.approx(
        dict(zip(METHODS, expected.tolist(), strict=True))
    )
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    order = [METHODS.index(name) for name in found.methods]
    peer = scikit_posthocs.posthoc_wilcoxon(list(values[:, order].T), p_adjust="holm").to_numpy()
    assert np.array(found.p) == pytest.approx(peer)
    assert found.cliques == (("good",), tuple(found.methods[1:]))


def test_too_few_blocks_are_refused_with_the_reason() -> None:
    found = rank(1, named(5), METHODS, scores(5))
    assert (found.ranks, found.friedman, found.p) == ((), None, ())
    assert "6 blocks or more" in found.refused


def test_pairs_that_could_never_be_significant_are_refused() -> None:
    """Six blocks give Wilcoxon p ≥ 2/64; times three pairs that is above 5 %. Eight give 3 · 2/256."""
    found = rank(1, named(6), METHODS, scores(6))
    assert found.friedman is not None and found.cliques == ()
    assert "it takes 7 blocks" in found.refused
    assert 3 * stats.wilcoxon(np.arange(1.0, 7)).pvalue > 0.05 >= 3 * stats.wilcoxon(np.arange(1.0, 8)).pvalue
    assert rank(1, named(7), METHODS, scores(7)).refused == ""
    assert rank(1, named(6), METHODS[:2], scores(6)[:, :2]).refused == ""


def test_methods_that_are_alike_in_every_block() -> None:
    found = rank(1, named(8), METHODS, np.ones((8, 3)))
    assert found.ranks == (2, 2, 2) and found.friedman is None
    assert np.array(found.p) == pytest.approx(np.ones((3, 3)))
    assert found.cliques == (tuple(METHODS),)
    assert "fewer than two methods" in rank(1, named(8), ["one"], np.ones((8, 1))).refused


def test_a_method_without_all_draws_in_every_block_is_left_out() -> None:
    rows = [
        Row(dataset, 1, method, 3 if (dataset, method) == ("c", "bad") else 5, 5, i2t=i2t, t2i=0.5)
        for dataset in "abcd"
        for method, i2t in (("ok", 0.3), ("good", 0.6), ("bad", 0.1))
    ]
    (found,) = rankings(rows)
    assert set(found.methods) == {"ok", "good"}
    assert found.blocks[:2] == ("a i2t", "a t2i") and len(found.blocks) == 8
    assert found.ranks == pytest.approx((1.25, 1.75))  # in four of eight blocks they tie
