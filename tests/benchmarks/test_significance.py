"""The two-way test against closed forms, peers and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xshot_bench.benchmarks.bench_significance import Study, simulate
from xshot_bench.benchmarks.significance import draw_sd, holm, sign_flip, two_way


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
    # of the 8 flips of (1, 2, 4) the one itself and its negative are as extreme
    assert sign_flip(np.array([1.0, 2.0, 4.0, np.nan]), rng) == pytest.approx(2 / 8)
    assert sign_flip(np.zeros(40), rng) == 1
    assert sign_flip(np.array([0.3]), rng) == 1
    differences = rng.standard_normal(200) + 0.15
    p = sign_flip(differences, np.random.default_rng(7))
    assert p == sign_flip(differences, np.random.default_rng(7))
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)


def test_sign_flip_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(8)
    p = [sign_flip(rng.standard_normal(12), rng) for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_holm_leaves_out_what_was_not_tested() -> None:
    # by hand: .01·3, then max(.03, .03·2), then max(.06, .04·1)
    assert holm([0.01, None, 0.04, float("nan"), 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), None, 0.06]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_two_equal_methods_are_rarely_told_apart() -> None:
    rates = simulate(Study(draw_sd=0.02, draws=5), 400, np.random.default_rng(9))
    assert rates.two_way < 0.095  # 6 % and three standard errors
    assert rates.covers_difference > 0.905
    assert 0.91 < rates.covers_map < 0.985
    assert rates.queries_of_one > 0.3  # what a test over queries alone makes of the same studies


@pytest.mark.slow
@pytest.mark.parametrize(("draws", "limit"), [(5, 0.07), (10, 0.06)])
@pytest.mark.parametrize("sd", [0.005, 0.01, 0.02])
def test_false_positives_and_coverage(draws: int, limit: float, sd: float) -> None:
    rates = simulate(Study(sd, draws), 4000, np.random.default_rng(10))
    assert rates.two_way <= limit
    assert 0.93 <= rates.covers_difference <= 0.97
    assert 0.93 <= rates.covers_map <= 0.97
