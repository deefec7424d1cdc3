"""How large a true difference a study can detect, from the variance components of what was observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from xshot_bench.benchmarks.significance import ALPHA, MeanSquares, of_the_mean


def planned_squares(squares: MeanSquares, draws: int, queries: int, planned: int) -> MeanSquares:
    """The mean squares to expect with ``planned`` draws, where ``squares`` were seen with ``draws`` × ``queries``.

    Variance components by the method of moments: residual MS_r, draws (MS_d - MS_r)/Q, queries (MS_q - MS_r)/S, none
    below 0; then E[MS_d] = residual + Q·σ²_d and E[MS_q] = residual + S'·σ²_q (Searle et al. 1992, ch. 4).
    """
    of_draws = max(0.0, squares.draw - squares.residual)
    of_queries = max(0.0, squares.query - squares.residual) / draws
    return MeanSquares(squares.residual + of_draws, squares.residual + planned * of_queries, squares.residual)


@dataclass(frozen=True)
class Study:
    """What is to be detected how: the two-way test's level, the power, and the draws (None: as many as were seen)."""

    alpha: float = ALPHA
    power: float = 0.8
    draws: int | None = None


def detectable(squares: MeanSquares, draws: int, queries: int, study: Study = Study()) -> float:
    """The true difference that the two-way test finds with the study's power, in the units of the values.

    The smallest δ with P(|T| > t_{1-α/2}) = power, where T is noncentral t with noncentrality δ / standard error and
    the test's degrees of freedom: a normal deviate over s = √(χ²/df), averaged over s. NaN for one draw.
    """
    planned = study.draws or draws
    if min(draws, planned) < 2:
        return float("nan")
    mean_square, df = of_the_mean(planned_squares(squares, draws, queries, planned), planned, queries)
    critical = float(stats.t.ppf(1 - study.alpha / 2, df))
    spread = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, df) / df)

    def lacking(shift: float) -> float:
        found = special.ndtr(shift - critical * spread) + special.ndtr(-shift - critical * spread)
        return float(found.mean()) - study.power

    shift = optimize.brentq(lacking, 0, 10 * critical + 10)
    return float(np.sqrt(mean_square / (planned * queries))) * float(shift)
