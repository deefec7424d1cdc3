"""Two methods' AP on the same draws and queries -> the ladder of tests, each of which answers its own question."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from xshot_bench.benchmarks.comparison import Difference, Power
from xshot_bench.benchmarks.power import Study, detectable
from xshot_bench.benchmarks.significance import (
    ALPHA,
    bootstrap,
    complete,
    effect,
    matters,
    mean_squares,
    sign_flip,
    smallest_p,
    two_way,
)

Drawn = Mapping[int, np.ndarray]  # draw -> AP [Q,2] of every query, in both directions


def paired(own: Drawn, other: Drawn) -> np.ndarray | None:
    """The difference in mean AP ``[S,Q]`` over the draws and queries that both have; None where there is no draw."""
    shared = sorted(own.keys() & other.keys())
    return complete(np.stack([(own[d] - other[d]).mean(1) for d in shared])) if shared else None


def difference(baseline: str, own: Drawn, other: Drawn, margin: float) -> Difference | None:
    """Every rung for ``own`` minus ``other``; None where they share no draw. Deterministic."""
    values = paired(own, other)
    if values is None:
        return None
    rng = np.random.default_rng(0)
    estimate, draws = two_way(values), len(values)
    flips = sign_flip(values, rng)
    refused = []
    if draws == 1:
        refused.append("over draws: one draw says nothing about others")
    elif smallest_p(draws) > ALPHA:
        refused.append(f"sign-flip over {draws} draws: its smallest p is {smallest_p(draws):.2g}; 6 draws could do")
    return Difference(
        baseline=baseline,
        estimate=estimate,
        effect=effect(values),
        squares=mean_squares(values),
        on_draw=dict(zip(sorted(own.keys() & other.keys()), flips.tolist(), strict=True)),
        over_draws=float(sign_flip(values.mean(1), rng)[0]) if smallest_p(draws) <= ALPHA else None,
        bootstrap=bootstrap(values, rng),
        matters=matters(estimate, margin),
        refused=tuple(refused),
    )


def power(differences: Sequence[Difference], hypotheses: int) -> Power | None:
    """What a table with these differences can detect; None where no difference has a test that could find anything."""
    tested = [d for d in differences if d.tested and d.estimate.standard_error > 0]
    if not tested:
        return None

    def found(study: Study) -> list[float]:
        return sorted(detectable(d.squares, d.estimate.draws, d.estimate.queries, study) for d in tested)

    as_it_is = found(Study())
    return Power(
        draws=max(d.estimate.draws for d in tested),
        typical=statistics.median(as_it_is),
        best=as_it_is[0],
        worst=as_it_is[-1],
        corrected=statistics.median(found(Study(alpha=ALPHA / max(hypotheses, 1)))),
        with_ten=statistics.median(found(Study(draws=10))),
    )
