"""Is a difference more than chance? Estimates over support draws and queries, tests, and their correction.

A few-shot result depends on two samples: the queries, and the support draws. A test over queries alone takes luck with
the draw for a property of the method, so the headline here is the crossed two-way test; `bench_significance` shows
by simulation what either does when there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty, in the units of the values.

    low, high: the confidence interval. p: two-sided, of the mean being 0; None where nothing can be tested.
    over: what the uncertainty generalises to. With one draw it is ``queries`` alone: "on this draw".
    """

    mean: float
    standard_error: float
    df: float
    low: float
    high: float
    p: float | None
    draws: int
    queries: int
    over: Literal["draws and queries", "queries", "draws", "nothing"]


def two_way(values: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The mean of ``values [S,Q]`` over S support draws × Q queries, both taken as random samples.

    values: AP of one method, or the paired difference of two. A query that is NaN in any draw is left out.

    Crossed random effects: the variance of the mean is (MS_draw + MS_query - MS_residual) / (S·Q), with Satterthwaite's
    degrees of freedom. It never falls below that of one factor alone, max(MS_draw, MS_query) / (S·Q), which then lends
    its own degrees of freedom. So a method that no draw changes gets the t-test over queries. A single draw (or query)
    leaves the other factor alone, said in ``over``. Without any variation the interval is the mean itself, and
    p is 1 at a mean of 0 and else 0. Raises `ValueError` where no query is left.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[:, ~np.isnan(values).any(axis=0)]
    draws, queries = values.shape
    if values.size == 0:
        raise ValueError("there is no query with a value in every draw")
    mean = float(values.mean())
    mean_square, df = _variation(values)
    if df == 0:
        return Estimate(mean, np.nan, 0, np.nan, np.nan, None, draws, queries, "nothing")
    error = float(np.sqrt(mean_square / values.size))
    margin = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    over: Literal["draws and queries", "queries", "draws"] = (
        "queries" if draws == 1 else "draws" if queries == 1 else "draws and queries"
    )
    return Estimate(mean, error, df, mean - margin, mean + margin, _p_value(mean, error, df), draws, queries, over)


def draw_sd(values: np.ndarray) -> float:
    """The standard deviation of mAP from draw to draw, of AP ``[S,Q]``; NaN for a single draw.

    Columns with NaN are left out. It holds what the draw does on these queries, not the luck with the queries.
    """
    values = np.asarray(values, dtype=np.float64)
    per_draw = values[:, ~np.isnan(values).any(axis=0)].mean(axis=1)
    return float(per_draw.std(ddof=1)) if len(per_draw) > 1 else float("nan")


def sign_flip(differences: np.ndarray, rng: np.random.Generator) -> float:
    """Two-sided p of Fisher's sign-flip test on the paired ``differences [Q]`` of one draw; NaN are left out.

    It answers "on this split and this draw" only. Exact where all 2^Q flips are few, else from 9,999 random ones.
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[~np.isnan(differences)]
    if len(differences) < 2:
        return 1.0
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, batch=1000, n_resamples=9999, rng=rng
    )
    return float(test.pvalue)


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the hypotheses that have a p-value; None and NaN stay where they are, as None."""
    from statsmodels.stats.multitest import multipletests

    tested = [i for i, p in enumerate(pvalues) if p is not None and not np.isnan(p)]
    corrected: list[float | None] = [None] * len(pvalues)
    if tested:
        adjusted = multipletests([pvalues[i] for i in tested], method="holm")[1]
        for i, p in zip(tested, adjusted, strict=True):
            corrected[i] = float(p)
    return corrected


def _variation(values: np.ndarray) -> tuple[float, float]:
    """The mean square that stands over S·Q in the variance of the mean, and its degrees of freedom (0: unknown)."""
    draws, queries = values.shape
    draw_effect = values.mean(axis=1) - values.mean()
    query_effect = values.mean(axis=0) - values.mean()
    draw_df, query_df = draws - 1, queries - 1
    of_draws = queries * float(np.square(draw_effect).sum()) / max(draw_df, 1)
    of_queries = draws * float(np.square(query_effect).sum()) / max(query_df, 1)
    residual = values - values.mean() - draw_effect[:, None] - query_effect
    of_residual = float(np.square(residual).sum()) / max(draw_df * query_df, 1)

    larger, larger_df = max((of_draws, draw_df), (of_queries, query_df))
    crossed = of_draws + of_queries - of_residual
    if draw_df * query_df == 0 or crossed <= larger:
        return larger, larger_df or draw_df or query_df
    spread = of_draws**2 / draw_df + of_queries**2 / query_df + of_residual**2 / (draw_df * query_df)
    return crossed, crossed**2 / spread


def _p_value(mean: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, df))
