"""What the tests do when there is nothing to find: ``python -m xshot_bench.benchmarks.bench_significance``.

Two methods that are equal on average are compared again and again; each draw of the support set shifts the mAP of each
method by chance. At 5 % an honest test calls 5 % of these studies significant,
and 95 % of its intervals hold the truth. Takes some minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from tabulate import tabulate

from xshot_bench.benchmarks.significance import two_way


@dataclass(frozen=True)
class Study:
    """A comparison of two equal methods. draw_sd: how much a draw shifts a method's mAP (.01 is one point)."""

    draw_sd: float
    draws: int
    queries: int = 300


@dataclass(frozen=True)
class Rates:
    """Shares of the simulated studies.

    two_way, queries_of_mean, queries_of_one: significant at 5 % by the two-way test, by the t-test over queries on
    the mean of the draws, and on one draw. covers_difference, covers_map: 95 % two-way intervals that hold the truth.
    """

    two_way: float
    queries_of_mean: float
    queries_of_one: float
    covers_difference: float
    covers_map: float


def simulate(study: Study, repetitions: int, rng: np.random.Generator) -> Rates:
    """The rates over ``repetitions`` simulated studies.

    AP of method m in draw s on query q = difficulty of q (skewed, mean 1/3) + liking of m for q (skewed, sd .1) +
    shift of m in s (sd ``draw_sd``) + rest (sd .1). Values are not clipped to [0, 1]: that keeps the truth exact.
    """
    hits = np.array([_once(study, rng) for _ in range(repetitions)])
    return Rates(*hits.mean(axis=0).tolist())


def _once(study: Study, rng: np.random.Generator) -> tuple[bool, ...]:
    difficulty = rng.beta(0.8, 1.6, study.queries)
    liking = 0.1 * (rng.exponential(size=(2, 1, study.queries)) - 1)
    shift = study.draw_sd * rng.standard_normal((2, study.draws, 1))
    ap = difficulty + liking + shift + 0.1 * rng.standard_normal((2, study.draws, study.queries))
    difference = ap[1] - ap[0]
    compared, alone = two_way(difference), two_way(ap[0])
    return (
        compared.p is not None and compared.p < 0.05,
        bool(stats.ttest_1samp(difference.mean(axis=0), 0).pvalue < 0.05),
        bool(stats.ttest_1samp(difference[0], 0).pvalue < 0.05),
        compared.low <= 0 <= compared.high,
        alone.low <= 1 / 3 <= alone.high,
    )


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for draws in (3, 5, 10):
        for draw_sd in (0.0, 0.005, 0.01, 0.02):
            rates = simulate(Study(draw_sd, draws), 2000, rng)
            rows.append((draws, draw_sd, *vars(rates).values()))
    print(tabulate(rows, ["draws", "draw sd", *Rates.__annotations__], floatfmt=".3f"))


if __name__ == "__main__":
    main()
