"""What the tests do when there is nothing to find, and when there is: ``python -m …benchmarks.bench_significance``.

Two methods that are equal on average are compared again and again; each draw of the support set shifts the mAP of each
method by chance. At 5 % an honest test calls 5 % of these studies significant, and 95 % of its intervals hold the
truth. Then the methods are set apart by what the power line says can be detected: 80 % of the studies should find it.
Takes some minutes.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from tabulate import tabulate

from xshot_bench.benchmarks.power import detectable
from xshot_bench.benchmarks.significance import MeanSquares, bootstrap, mean_squares, sign_flip, two_way


@dataclass(frozen=True)
class Study:
    """A comparison of two methods. draw_sd: how much a draw shifts a method's mAP (.01 is one point).

    liking, rest: the standard deviations of what a query lends a method in every draw, and in one draw. gap: the
    true difference of the methods.
    """

    draw_sd: float
    draws: int
    queries: int = 300
    liking: float = 0.1
    rest: float = 0.1
    gap: float = 0.0

    def squares(self) -> MeanSquares:
        """The mean squares to expect of the difference of the two methods."""
        residual = 2 * self.rest**2
        return MeanSquares(
            draw=residual + self.queries * 2 * self.draw_sd**2,
            query=residual + self.draws * 2 * self.liking**2,
            residual=residual,
        )


LOUD = Study(draw_sd=0, draws=0)
QUIET = Study(draw_sd=0, draws=0, liking=0.02, rest=0.06)  # the draw says most: hard for any test


@dataclass(frozen=True)
class Rates:
    """Shares of the simulated studies.

    two_way, bootstrap, queries_of_mean, queries_of_one: found a difference at 5 % by the two-way test, by the
    bootstrap over draws and queries, and, naively, by the t-test over queries on the mean of the draws and on one
    draw. covers_difference, covers_map: 95 % two-way intervals that hold the truth.
    """

    two_way: float
    bootstrap: float
    queries_of_mean: float
    queries_of_one: float
    covers_difference: float
    covers_map: float


def simulate(study: Study, repetitions: int, rng: np.random.Generator) -> Rates:
    """The rates over ``repetitions`` simulated studies; the bootstrap's over the first 500 of them."""
    hits = [_once(study, rng, with_bootstrap=i < 500) for i in range(repetitions)]
    return Rates(*(statistics.fmean(hit for hit in column if hit is not None) for column in zip(*hits, strict=True)))


def sample(study: Study, rng: np.random.Generator) -> np.ndarray:
    """AP ``[2,S,Q]`` of both methods.

    AP of method m in draw s on query q = difficulty of q (skewed, mean 1/3) + liking of m for q (skewed) + shift of m
    in s + rest (+ the gap). Values are not clipped to [0, 1]: that keeps the truth exact.
    """
    difficulty = rng.beta(0.8, 1.6, study.queries)
    liking = study.liking * (rng.exponential(size=(2, 1, study.queries)) - 1)
    shift = study.draw_sd * rng.standard_normal((2, study.draws, 1))
    rest = study.rest * rng.standard_normal((2, study.draws, study.queries))
    return difficulty + liking + shift + rest + np.array([0, study.gap])[:, None, None]


def sign_flips(studies: int, queries: int, rng: np.random.Generator) -> np.ndarray:
    """P of the sign-flip test over the queries of one draw, of studies in which no method is better on any query."""
    return np.array([float(sign_flip(rng.standard_normal(queries), rng)[0]) for _ in range(studies)])


def _once(study: Study, rng: np.random.Generator, with_bootstrap: bool) -> tuple[bool | None, ...]:
    ap = sample(study, rng)
    difference = ap[1] - ap[0]
    compared, alone = two_way(difference), two_way(ap[0])
    low, high = bootstrap(difference, rng) if with_bootstrap else (0, 0)
    return (
        compared.p is not None and compared.p < 0.05,
        not low <= 0 <= high if with_bootstrap else None,
        bool(stats.ttest_1samp(difference.mean(axis=0), 0).pvalue < 0.05),
        bool(stats.ttest_1samp(difference[0], 0).pvalue < 0.05),
        compared.low <= study.gap <= compared.high,
        alone.low <= 1 / 3 <= alone.high,
    )


def main() -> None:
    rng = np.random.default_rng(0)
    for title, kind in (("queries differ much", LOUD), ("queries differ little", QUIET)):
        print(f"Two equal methods, {title}: share of studies that find a difference at 5 %, and coverage\n")
        rows = []
        for draws in (3, 5, 10):
            for draw_sd in (0.0, 0.005, 0.01, 0.02):
                rates = simulate(replace(kind, draw_sd=draw_sd, draws=draws), 4000, rng)
                rows.append((draws, draw_sd, *vars(rates).values()))
        print(tabulate(rows, ["draws", "draw sd", *Rates.__annotations__], floatfmt=".3f"), end="\n\n")

    print("Sign-flip test over the queries of one draw, no difference: shares of p at or under")
    p = sign_flips(4000, 100, rng)
    print(tabulate([[(p <= level).mean() for level in (0.01, 0.05, 0.1, 0.5)]], [".01", ".05", ".1", ".5"]))
    print(f"Kolmogorov-Smirnov against uniform: p = {stats.kstest(p, 'uniform').pvalue:.2f}\n")

    print("Power: the true difference that is said to be found in 80 % of studies, the median that studies estimate,")
    print("and the share that find it\n")
    rows = []
    for draws in (3, 5, 10):
        for draw_sd in (0.0, 0.01, 0.02):
            study = Study(draw_sd, draws)
            said = detectable(study.squares(), draws, study.queries)
            seen = [sample(study, rng) for _ in range(300)]
            estimated = [detectable(mean_squares(ap[1] - ap[0]), draws, study.queries) for ap in seen]
            found = simulate(replace(study, gap=said), 2000, rng).two_way
            rows.append((draws, draw_sd, said, statistics.median(estimated), found))
    print(tabulate(rows, ["draws", "draw sd", "difference", "estimated", "found"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
