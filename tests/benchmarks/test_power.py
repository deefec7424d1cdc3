"""What can be detected, against statsmodels where the design is a plain t-test, and by simulation where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from xshot_bench.benchmarks.bench_significance import Study as Simulated
from xshot_bench.benchmarks.bench_significance import sample, simulate
from xshot_bench.benchmarks.power import Study, detectable, planned_squares
from xshot_bench.benchmarks.significance import MeanSquares, mean_squares, two_way


@pytest.mark.parametrize("study", [Study(), Study(alpha=0.01), Study(power=0.95)])
@pytest.mark.parametrize("queries", [6, 50])
def test_where_no_draw_matters_it_is_the_t_tests_power(study: Study, queries: int) -> None:
    row = np.random.default_rng(0).standard_normal(queries)
    found = detectable(mean_squares(np.tile(row, (5, 1))), 5, queries, study)
    peer = TTestPower().solve_power(nobs=queries, alpha=study.alpha, power=study.power)
    assert found == pytest.approx(peer * row.std(ddof=1), rel=1e-3)


def test_where_no_query_matters_more_draws_are_more_observations() -> None:
    column = np.random.default_rng(1).standard_normal((4, 1))
    squares = mean_squares(np.tile(column, (1, 30)))
    for draws in (4, 12):
        found = detectable(squares, 4, 30, Study(draws=draws))
        peer = TTestPower().solve_power(nobs=draws, alpha=0.05, power=0.8)
        assert found == pytest.approx(peer * column.std(ddof=1), rel=1e-3)


def test_planned_squares_by_hand() -> None:
    # residual 1, of draws (7-1)/Q = 2, of queries (13-1)/4 = 3: with 10 draws 1 + 3·2 and 1 + 10·3
    assert planned_squares(MeanSquares(7, 13, 1), 4, 3, 10) == MeanSquares(7, 31, 1)
    # a component that came out below 0 is none
    assert planned_squares(MeanSquares(0.5, 0.5, 1), 4, 3, 10) == MeanSquares(1, 1, 1)


def test_one_draw_detects_nothing() -> None:
    assert np.isnan(detectable(MeanSquares(0, 1, 0), 1, 30))


def test_what_it_says_is_found_is_found() -> None:
    study = Simulated(draw_sd=0.01, draws=5, queries=100)
    gap = detectable(study.squares(), 5, 100)
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        ap = sample(replace(study, gap=gap), rng)
        found.append((two_way(ap[1] - ap[0]).p or 0) < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)  # three standard errors


@pytest.mark.slow
@pytest.mark.parametrize("draws", [5, 10])
@pytest.mark.parametrize("sd", [0.0, 0.01, 0.02])
def test_power_in_the_long_run(draws: int, sd: float) -> None:
    study = Simulated(sd, draws)
    gap = detectable(study.squares(), draws, study.queries)
    rng = np.random.default_rng(3)
    assert simulate(replace(study, gap=gap), 3000, rng).two_way == pytest.approx(0.8, abs=0.04)
    seen = [sample(study, rng) for _ in range(200)]
    estimated = [detectable(mean_squares(ap[1] - ap[0]), draws, study.queries) for ap in seen]
    assert np.median(estimated) == pytest.approx(gap, rel=0.15)
