"""Methods across blocks (datasets and class splits, in either direction): ranks, and whether those are luck."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from xshot_bench.benchmarks.comparison import Ranking, Row
from xshot_bench.benchmarks.significance import ALPHA, correct, smallest_p
from xshot_bench.benchmarks.tiers import cliques
from xshot_bench.datasets.splitting import Shots

ENOUGH = 6  # blocks: with fewer no rank test of two methods can reach 5 %


def rankings(rows: Sequence[Row]) -> tuple[Ranking, ...]:
    """One ranking for each X, of the methods that have all their draws in every block."""
    return tuple(_ranking([r for r in rows if r.shots == x and r.group == "methods"]) for x in _shots(rows))


def rank(shots: Shots | None, blocks: Sequence[str], methods: Sequence[str], scores: np.ndarray) -> Ranking:
    """Rank ``methods`` by ``scores [blocks, methods]`` (larger is better; ties share their mean rank).

    Friedman's test asks whether all are alike (Demšar 2006); then Wilcoxon's signed-rank test of each pair,
    Holm-corrected, whose verdict on a pair does not depend on who else is in the table, as that of mean ranks does
    (Benavoli et al. 2016). A test that could never be significant is not made, and ``refused`` says why.
    """
    n, k = scores.shape
    if n < ENOUGH:
        return Ranking(shots, tuple(blocks), refused=f"a rank test needs {ENOUGH} blocks or more")
    if k < 2:
        return Ranking(shots, tuple(blocks), refused="fewer than two methods have all their draws in every block")
    ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
    order = np.argsort(ranks, kind="stable")
    names, scores = [methods[i] for i in order], scores[:, order]
    friedman = float(stats.friedmanchisquare(*scores.T).pvalue) if k > 2 and np.ptp(scores, axis=1).any() else None

    pairs = list(itertools.combinations(range(k), 2))
    p = np.ones((k, k))
    refused = ""
    if smallest_p(n) * len(pairs) > ALPHA:
        needed = math.ceil(math.log2(2 * len(pairs) / ALPHA))
        refused = f"with {n} blocks no pair of {k} methods can be significant after Holm: it takes {needed} blocks"
    else:
        found = [
            1.0 if (scores[:, a] == scores[:, b]).all() else float(stats.wilcoxon(scores[:, a], scores[:, b]).pvalue)
            for a, b in pairs
        ]
        for (a, b), corrected in zip(pairs, correct(found), strict=True):
            p[a, b] = p[b, a] = corrected
    return Ranking(
        shots=shots,
        blocks=tuple(blocks),
        methods=tuple(names),
        ranks=tuple(ranks[order].tolist()),
        friedman=friedman,
        p=tuple(tuple(line) for line in p.tolist()),
        cliques=tuple(cliques(names, lambda a, b: p[names.index(a), names.index(b)] <= ALPHA)) if not refused else (),
        refused=refused,
    )


def _shots(rows: Sequence[Row]) -> list[Shots | None]:
    return list(dict.fromkeys(row.shots for row in rows))


def _ranking(rows: Sequence[Row]) -> Ranking:
    """``rows``: the methods of every dataset at one X."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    whole = {(row.dataset, row.method): row for row in rows if row.draws == row.asked}
    names = [m for m in dict.fromkeys(row.method for row in rows) if all((d, m) in whole for d in datasets)]
    blocks = [f"{dataset} {direction}" for dataset in datasets for direction in ("i2t", "t2i")]
    scores = [
        [getattr(whole[dataset, name], direction) for name in names]
        for dataset in datasets
        for direction in ("i2t", "t2i")
    ]
    return rank(rows[0].shots, blocks, names, np.array(scores).reshape(len(blocks), len(names)))
