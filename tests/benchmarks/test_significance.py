"""The two-way test against closed forms, peers and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from xshot_bench.benchmarks.bench_significance import LOUD, QUIET, Study, sign_flips, simulate
from xshot_bench.benchmarks.significance import (
    Estimate,
    bootstrap,
    correct,
    draw_sd,
    effect,
    matters,
    sign_flip,
    smallest_p,
    two_way,
)


def study(rng: np.random.Generator, draws: int = 5, queries: int = 40) -> np.ndarray:
    return (
        0.05 * rng.standard_normal((draws, 1))
        + 0.2 * rng.standard_normal(queries)
        + 0.1 * rng.standard_normal((draws, queries))
    )


def test_mean_squares_are_those_of_an_analysis_of_variance() -> None:
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = study(np.random.default_rng(0), queries=12)
    draw, query = np.indices(values.shape)
    frame = pd.DataFrame({"ap": values.ravel(), "draw": draw.ravel(), "query": query.ravel()})
    table = anova_lm(ols("ap ~ C(draw) + C(query)", frame).fit())
    squares = (table["sum_sq"] / table["df"]).to_numpy() * [1, 1, -1]
    estimate = two_way(values)
    variance = squares.sum() / values.size
    assert variance > max(squares) / values.size  # the floor is not what is tested here
    assert estimate.standard_error == pytest.approx(variance**0.5)
    assert estimate.df == pytest.approx(squares.sum() ** 2 / (squares**2 / table["df"]).sum())
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.over == "draws and queries"


def test_interval_and_p_agree() -> None:
    values = study(np.random.default_rng(1)) + 0.05
    estimate = two_way(values)
    assert estimate.p is not None
    edge = two_way(values, confidence=1 - estimate.p)
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)
    assert estimate.low < estimate.mean < estimate.high


@pytest.mark.parametrize("draws", [1, 5])
def test_without_variation_between_draws_it_is_the_test_over_queries(draws: int) -> None:
    row = np.random.default_rng(2).standard_normal(30) + 0.3
    estimate = two_way(np.tile(row, (draws, 1)))
    peer = stats.ttest_1samp(row, 0)
    assert estimate.p == pytest.approx(peer.pvalue)
    interval = peer.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.over == ("queries" if draws == 1 else "draws and queries")


def test_without_variation_between_queries_it_is_the_test_over_draws() -> None:
    column = np.random.default_rng(3).standard_normal(6) + 0.3
    for queries in (1, 30):
        estimate = two_way(np.tile(column[:, None], (1, queries)))
        assert estimate.p == pytest.approx(stats.ttest_1samp(column, 0).pvalue)
        assert estimate.over == ("draws" if queries == 1 else "draws and queries")


def test_variance_never_falls_below_one_factors() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((5, 60))
    values -= values.mean(axis=1, keepdims=True)  # less variation between draws than the rest would make
    estimate = two_way(values + 0.1)
    peer = stats.ttest_1samp((values + 0.1).mean(axis=0), 0)
    assert estimate.p == pytest.approx(peer.pvalue)


def test_degenerate_values() -> None:
    zero = two_way(np.zeros((5, 8)))
    assert (zero.mean, zero.low, zero.high, zero.p) == (0, 0, 0, 1)
    constant = two_way(np.full((5, 8), 0.25))
    assert (constant.low, constant.high, constant.p) == (0.25, 0.25, 0)
    single = two_way(np.array([[0.5]]))
    assert single.over == "nothing"
    assert single.p is None
    assert np.isnan(single.low)
    with pytest.raises(ValueError, match="no query"):
        two_way(np.full((2, 3), np.nan))


def test_queries_left_out_in_any_draw_are_left_out() -> None:
    values = study(np.random.default_rng(5))
    holed = values.copy()
    holed[:, 3] = np.nan
    holed[2, 7] = np.nan
    assert two_way(holed) == two_way(np.delete(values, [3, 7], axis=1))
    assert draw_sd(holed) == draw_sd(np.delete(values, [3, 7], axis=1))


def test_draw_sd() -> None:
    assert draw_sd(np.array([[0.1, 0.3], [0.3, 0.5], [0.5, 0.7]])) == pytest.approx(0.2)
    assert np.isnan(draw_sd(np.ones((1, 4))))


def test_sign_flip_by_hand() -> None:
    rng = np.random.default_rng(6)
    # of the 8 flips of (1, 2, 4) the one itself and its negative are as extreme; of (1, -1, 4), those of ±6 and ±4
    assert sign_flip(np.array([[1.0, 2.0, 4.0], [-1.0, -2.0, -4.0]]), rng) == pytest.approx([2 / 8, 2 / 8])
    assert sign_flip(np.array([1.0, -1.0, 4.0]), rng) == pytest.approx([6 / 8])
    assert sign_flip(np.zeros((1, 40)), rng) == pytest.approx([1])
    assert sign_flip(np.array([0.3]), rng) == pytest.approx([1])


@pytest.mark.parametrize("queries", [9, 200])
def test_sign_flip_is_scipys_permutation_test(queries: int) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((3, queries)) + 0.15
    p = sign_flip(rows, np.random.default_rng(8))
    for row, own in zip(rows, p, strict=True):
        peer = stats.permutation_test(
            (row,), np.mean, permutation_type="samples", vectorized=True, n_resamples=9999, rng=rng
        )
        # scipy doubles a one-sided share, so that its own standard error is up to .009
        assert own == pytest.approx(peer.pvalue, abs=1e-12 if queries == 9 else 0.03)
    assert (p == sign_flip(rows, np.random.default_rng(8))).all()


def test_sign_flip_is_uniform_under_the_null() -> None:
    p = sign_flips(300, 12, np.random.default_rng(8))
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_smallest_p_is_what_a_perfect_record_gets() -> None:
    for n in (2, 3, 5, 6, 10):
        perfect = np.arange(1.0, n + 1)
        assert smallest_p(n) == pytest.approx(stats.wilcoxon(perfect).pvalue)
        assert smallest_p(n) == pytest.approx(sign_flip(perfect, np.random.default_rng(0))[0])


def test_effect_by_hand() -> None:
    found = effect(np.array([[0.1, 0.3, -0.1, np.nan], [0.3, -0.3, -0.3, 1.0], [0.2, 0.0, 0.1, 1.0]]))
    # means over draws .2, 0, -.1 and over queries .1, -.1, .1
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert found.draws_won == pytest.approx(2 / 3)
    assert found.d_z == pytest.approx((0.1 / 3) / np.std([0.2, 0, -0.1], ddof=1))
    same = effect(np.zeros((4, 3)))
    assert (same.draws_won, same.ties) == (0.5, 3)
    assert np.isnan(same.d_z)


def test_bootstrap_over_draws_and_queries() -> None:
    values = study(np.random.default_rng(11), draws=8, queries=60) + 0.1
    rng = np.random.default_rng(12)
    means = [values[np.ix_(rng.integers(0, 8, 8), rng.integers(0, 60, 60))].mean() for _ in range(4000)]
    found = bootstrap(values, np.random.default_rng(13))
    assert found == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.006)
    assert found == bootstrap(values, np.random.default_rng(13))
    single = bootstrap(values[:1], np.random.default_rng(13))  # over queries alone
    peer = stats.bootstrap((values[0],), np.mean, method="percentile", rng=rng).confidence_interval
    assert single == pytest.approx((peer.low, peer.high), abs=0.01)
    assert bootstrap(np.full((3, 5), 0.5), rng) == (0.5, 0.5)
    assert np.isnan(bootstrap(np.ones((3, 1)), rng)).all()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.006, 0.02, "different"), (-0.02, -0.006, "different"), (-0.005, 0.005, "equivalent"),
     (-0.001, 0.006, "undecided"), (0.001, 0.006, "undecided"), (np.nan, np.nan, None)],
)  # fmt: skip
def test_what_matters(low: float, high: float, verdict: str | None) -> None:
    assert matters(Estimate(0, 0, 1, low, high, None, 1, 1, "nothing"), 0.005) == verdict


def test_corrections_leave_out_what_was_not_tested() -> None:
    # by hand: .01·3, then max(.03, .03·2), then max(.06, .04·1)
    p = [0.01, None, 0.04, float("nan"), 0.03]
    assert correct(p) == [pytest.approx(0.03), None, pytest.approx(0.06), None, pytest.approx(0.06)]
    # from the largest: .04·3/3, then min(.04, .03·3/2), then .01·3/1
    assert correct(p, "fdr_bh") == [pytest.approx(0.03), None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert correct([None]) == [None]
    assert correct([]) == []


def test_two_equal_methods_are_rarely_told_apart() -> None:
    rates = simulate(Study(draw_sd=0.02, draws=5), 400, np.random.default_rng(9))
    assert rates.two_way < 0.095  # 6 % and three standard errors
    assert rates.covers_difference > 0.905
    assert 0.91 < rates.covers_map < 0.985
    assert rates.queries_of_one > 0.3  # what a test over queries alone makes of the same studies


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LOUD, QUIET], ids=["loud", "quiet"])
@pytest.mark.parametrize(("draws", "limit"), [(5, 0.07), (10, 0.06)])
@pytest.mark.parametrize("sd", [0.005, 0.01, 0.02])
def test_false_positives_and_coverage(kind: Study, draws: int, limit: float, sd: float) -> None:
    rates = simulate(replace(kind, draw_sd=sd, draws=draws), 4000, np.random.default_rng(10))
    assert rates.two_way <= limit
    assert 0.93 <= rates.covers_difference <= 0.97
    assert 0.93 <= rates.covers_map <= 0.97
    assert rates.queries_of_one > rates.two_way


@pytest.mark.slow
def test_sign_flips_are_uniform_in_the_long_run() -> None:
    p = sign_flips(4000, 100, np.random.default_rng(14))
    assert stats.kstest(p, "uniform").pvalue > 0.01
