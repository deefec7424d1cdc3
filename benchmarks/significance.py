"""Is a difference more than chance? Estimates over support draws and queries, tests, and their correction.

A few-shot result depends on two samples: the queries, and the support draws. A test over queries alone takes luck with
the draw for a property of the method, so the headline here is the crossed two-way test; `bench_significance` shows
by simulation what either does when there is nothing to find.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Correction = Literal["holm", "fdr_bh"]
Matters = Literal["different", "equivalent", "undecided"]
ALPHA = 0.05
FLIPS = 9999


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


@dataclass(frozen=True)
class Effect:
    """How large a difference is. d_z: Cohen's, the mean over queries by its standard deviation; NaN without any.

    draws_won: the share of draws with a mean above 0, P(A > B); one of exactly 0 counts half. wins, ties, losses: the
    queries with a difference above, of, and below 0 in the mean of the draws.
    """

    d_z: float
    draws_won: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class MeanSquares:
    """Of a crossed analysis of variance: between draws, between queries, and what is left."""

    draw: float
    query: float
    residual: float


def two_way(values: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The mean of ``values [S,Q]`` over S support draws × Q queries, both taken as random samples.

    values: AP of one method, or the paired difference of two. A query that is NaN in any draw is left out.

    Crossed random effects: the variance of the mean is (MS_draw + MS_query - MS_residual) / (S·Q), with Satterthwaite's
    degrees of freedom. It never falls below that of one factor alone, max(MS_draw, MS_query) / (S·Q), which then lends
    its own degrees of freedom. So a method that no draw changes gets the t-test over queries. A single draw (or query)
    leaves the other factor alone, said in ``over``. Without any variation the interval is the mean itself, and
    p is 1 at a mean of 0 and else 0. Raises `ValueError` where no query is left.
    """
    values = complete(values)
    draws, queries = values.shape
    mean = float(values.mean())
    mean_square, df = of_the_mean(mean_squares(values), draws, queries)
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
    per_draw = complete(values).mean(axis=1)
    return float(per_draw.std(ddof=1)) if len(per_draw) > 1 else float("nan")


def effect(values: np.ndarray) -> Effect:
    """How large and how steady a paired difference ``values [S,Q]`` is; queries with NaN in any draw are left out."""
    values = complete(values)
    per_query, per_draw = values.mean(axis=0), values.mean(axis=1)
    spread = per_query.std(ddof=1) if len(per_query) > 1 else np.nan
    return Effect(
        d_z=float(per_query.mean() / spread) if spread > 0 else float("nan"),
        draws_won=float(((per_draw > 0) + 0.5 * (per_draw == 0)).mean()),
        wins=int((per_query > 0).sum()),
        ties=int((per_query == 0).sum()),
        losses=int((per_query < 0).sum()),
    )


def sign_flip(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p of Fisher's sign-flip test for each row of paired ``differences [...,n]``, over its n values.

    Over the queries of one draw it answers "on this split and this draw" only; over the means of n draws, "on these
    queries". Exact where all 2^n flips are at most 9,999, else (1 + as extreme) / (1 + 9,999) of random ones. All rows
    see the same flips, which makes this many times faster than `scipy.stats.permutation_test` row by row.
    """
    differences = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    n = differences.shape[-1]
    observed = np.abs(differences.sum(-1)) * (1 - 1e-12)  # sums in another order differ in the last digits
    if exact := 2**n <= FLIPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        batches = iter((signs,))
    else:
        batches = (2.0 * rng.integers(0, 2, (size, n), dtype=np.int8) - 1 for size in [FLIPS // 9] * 9)
    extreme = np.zeros(observed.shape)
    for signs in batches:
        extreme += (np.abs(differences @ signs.T) >= observed[..., None]).sum(-1)
    return extreme / 2**n if exact else (1 + extreme) / (1 + FLIPS)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that a sign-flip test (or Wilcoxon's) over n values can give: 2 / 2^n."""
    return min(1.0, 2 / 2**n)


def bootstrap(values: np.ndarray, rng: np.random.Generator, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean of ``values [S,Q]``, from 1,999 resamples of draws and of queries.

    It assumes no distribution, but with few draws it is too narrow: S draws hold S - 1 pieces of information on their
    spread, and resampling them sees (S - 1) / S of it. So it stands beside the two-way interval, not in its place.
    """
    values = complete(values)
    if values.shape[1] < 2:
        return float("nan"), float("nan")

    def mean_of(queries: np.ndarray, draws: np.ndarray | None = None, axis: int = -1) -> np.ndarray:
        if draws is None:
            return values[0][queries].mean(axis)
        counts = (draws[..., None] == np.arange(len(values))).mean(-2)
        return np.take_along_axis(counts @ values, queries, axis=-1).mean(axis)

    samples = (np.arange(values.shape[1]), np.arange(len(values)))[: 2 if len(values) > 1 else 1]
    interval = stats.bootstrap(
        samples, mean_of, vectorized=True, n_resamples=1999, batch=500, confidence_level=confidence,
        method="percentile", rng=rng,
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def correct(pvalues: Sequence[float | None], correction: Correction = "holm") -> list[float | None]:
    """Corrected p-values over the hypotheses that have one; None and NaN stay where they are, as None.

    ``holm`` bounds the chance of any false finding, ``fdr_bh`` (Benjamini-Hochberg) the expected share of false ones.
    """
    from statsmodels.stats.multitest import multipletests

    tested = [i for i, p in enumerate(pvalues) if p is not None and not np.isnan(p)]
    corrected: list[float | None] = [None] * len(pvalues)
    if tested:
        adjusted = multipletests([pvalues[i] for i in tested], method=correction)[1]
        for i, p in zip(tested, adjusted, strict=True):
            corrected[i] = float(p)
    return corrected


def matters(estimate: Estimate, margin: float) -> Matters | None:
    """Whether the interval lies beyond ±margin, within it, or across; None where there is no interval."""
    if np.isnan(estimate.low):
        return None
    if estimate.low > margin or estimate.high < -margin:
        return "different"
    return "equivalent" if -margin <= estimate.low and estimate.high <= margin else "undecided"


def complete(values: np.ndarray) -> np.ndarray:
    """``values [S,Q]`` without the queries that are NaN in any draw. Raises `ValueError` where none is left."""
    values = np.asarray(values, dtype=np.float64)
    values = values[:, ~np.isnan(values).any(axis=0)]
    if values.size == 0:
        raise ValueError("there is no query with a value in every draw")
    return values


def mean_squares(values: np.ndarray) -> MeanSquares:
    """The crossed analysis of variance of complete ``values [S,Q]``."""
    draws, queries = values.shape
    draw_effect = values.mean(axis=1) - values.mean()
    query_effect = values.mean(axis=0) - values.mean()
    residual = values - values.mean() - draw_effect[:, None] - query_effect
    return MeanSquares(
        draw=queries * float(np.square(draw_effect).sum()) / max(draws - 1, 1),
        query=draws * float(np.square(query_effect).sum()) / max(queries - 1, 1),
        residual=float(np.square(residual).sum()) / max((draws - 1) * (queries - 1), 1),
    )


def of_the_mean(squares: MeanSquares, draws: int, queries: int) -> tuple[float, float]:
    """The mean square that stands over S·Q in the variance of the mean, and its degrees of freedom (0: unknown)."""
    draw_df, query_df = draws - 1, queries - 1
    larger, larger_df = max((squares.draw, draw_df), (squares.query, query_df))
    crossed = squares.draw + squares.query - squares.residual
    if draw_df * query_df == 0 or crossed <= larger:
        return larger, larger_df or draw_df or query_df
    spread = squares.draw**2 / draw_df + squares.query**2 / query_df + squares.residual**2 / (draw_df * query_df)
    return crossed, crossed**2 / spread


def _p_value(mean: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, df))
