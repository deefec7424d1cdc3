"""Scores + labels -> average precision and ranks, one number a query, by the rankings of ``ranks.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xshot_bench.benchmarks.ranks import Ranked, checked, ranked, require_finite, shuffled_places


@dataclass(frozen=True)
class Cutoff:
    """AP@k looks at the first ``k`` ranks only.

    denominator: what the sum of precisions is divided by. ``relevant``: all R relevant items, retrieved or not
    (trec_eval's ``map_cut_k``). ``hits``: the relevant items among the first k (ACMR); higher, and 0 without a hit.
    """

    k: int
    denominator: Literal["relevant", "hits"] = "relevant"


def average_precision(
    scores: np.ndarray,
    query_label: np.ndarray,
    gallery_label: np.ndarray,
    cutoff: Cutoff | None = None,
    tie_seed: int = 0,
) -> np.ndarray:
    """AP of each query ``[Q]`` (float64); NaN for a query without a relevant item, which the caller leaves out.

    AP = 1/R Σ_i i/rank_i over the R relevant gallery items in the order of their ranks; relevant is what has the
    query's label. scores ``[Q,G]``, larger is more similar; labels ``[Q]`` and ``[G]``. The ranking is the full one
    unless a ``cutoff`` is given. Raises `ValueError` for scores that are not finite or not of shape ``[Q,G]``.
    """
    ap = np.full(len(query_label), np.nan)
    for block in ranked(scores, query_label, gallery_label, tie_seed):
        ap[block.rows] = average(block, cutoff)
    return ap


def interpolated_precision(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0
) -> np.ndarray:
    """Precision of each query at recall 0, 0.1, ..., 1 ``[Q,11]``; NaN for a query without a relevant item.

    The highest precision at that recall or a later one, as trec_eval's ``iprec_at_recall``. Arguments and errors as in
    `average_precision`.
    """
    found = np.full((len(query_label), 11), np.nan)
    for block in ranked(scores, query_label, gallery_label, tie_seed):
        found[block.rows] = precision_by_recall(block)
    return found


def first_items(scores: np.ndarray, k: int, tie_seed: int = 0) -> np.ndarray:
    """The positions of the first ``k`` items of each ranking, ``[Q,min(k,G)]``. Scores ``[Q,G]``."""
    found = np.empty((len(scores), min(k, scores.shape[1])), dtype=np.int64)
    for block in ranked(scores, np.zeros(len(scores)), np.ones(scores.shape[1]), tie_seed):
        found[block.rows] = block.first(k)
    return found


def pair_ranks(scores: np.ndarray, pair: np.ndarray, tie_seed: int = 0) -> np.ndarray:
    """The rank ``[Q]`` (from 1) of each query's own pair, the gallery item at ``pair [Q]``; 0 where ``pair`` is -1.

    R@k is the share of ranks up to k among those above 0. scores ``[Q,G]`` and errors as in `average_precision`.
    """
    pair = np.asarray(pair)
    scores = checked(scores, (len(pair), scores.shape[-1]))
    require_finite(scores)
    place = shuffled_places(scores.shape[1], tie_seed)
    ranks = np.zeros(len(pair), dtype=np.int64)
    for query in np.flatnonzero(pair >= 0):
        row, own = scores[query], pair[query]
        tied = np.flatnonzero(row == row[own])
        ranks[query] = 1 + np.count_nonzero(row > row[own]) + np.count_nonzero(place[tied] < place[own])
    return ranks


def first_ranks(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0
) -> np.ndarray:
    """The rank ``[Q]`` (from 1) of the first relevant item of each query; 0 for a query without one.

    With several relevant items a query, R@k is the share of these ranks up to k. Arguments and errors as in
    `average_precision`.
    """
    found = np.zeros(len(query_label), dtype=np.int64)
    for block in ranked(scores, query_label, gallery_label, tie_seed):
        found[block.rows] = first_rank(block)
    return found


def expected_random_ap(relevant: np.ndarray, gallery: np.ndarray | int) -> np.ndarray:
    """The mean AP over all orders of ``gallery`` items (N) of which ``relevant`` (R) are relevant; NaN at R = 0.

    E[AP] = (R-1)/(N-1) · (1 - H_N/N) + H_N/N with the harmonic number H_N: the item at rank r is relevant with
    probability R/N, and then each of the r-1 before it with probability (R-1)/(N-1). Arrays broadcast.
    """
    relevant, gallery = np.asarray(relevant), np.asarray(gallery)
    harmonic = np.cumsum(1 / np.arange(1, max(gallery.max(initial=1), 1) + 1))
    first = harmonic[np.maximum(gallery, 1) - 1] / np.maximum(gallery, 1)
    expected = (relevant - 1) / np.maximum(gallery - 1, 1) * (1 - first) + first
    return np.where(relevant > 0, expected, np.nan)


def expected_random_map(query_label: np.ndarray, gallery_label: np.ndarray) -> float:
    """The expected mAP of a random ranking, over the queries that have a relevant item; NaN where none has."""
    labels, counts = np.unique(gallery_label, return_counts=True)
    members = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    relevant = np.array([members.get(label, 0) for label in np.asarray(query_label).tolist()], dtype=np.int64)
    relevant = relevant[relevant > 0]
    return float(expected_random_ap(relevant, len(gallery_label)).mean()) if len(relevant) else float("nan")


def average(block: Ranked, cutoff: Cutoff | None = None) -> np.ndarray:
    """AP of a block's queries ``[n]``; NaN where nothing is relevant."""
    size = block.ranks.shape[1]
    if not size:
        return np.full(len(block.rows), np.nan)
    if cutoff is None:
        return block.precision.mean(1)
    within = block.ranks <= cutoff.k
    divisor = size if cutoff.denominator == "relevant" else np.maximum(within.sum(1), 1)
    return (block.precision * within).sum(1) / divisor


def precision_by_recall(block: Ranked) -> np.ndarray:
    """Interpolated precision of a block's queries ``[n,11]``; NaN where nothing is relevant."""
    size = block.ranks.shape[1]
    if not size:
        return np.full((len(block.rows), 11), np.nan)
    starts = [max(-(-level * size // 10), 1) - 1 for level in range(11)]
    highest = np.maximum.reduceat(block.precision, starts, axis=1)
    return np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]


def first_rank(block: Ranked) -> np.ndarray:
    """The rank of the first relevant item of a block's queries ``[n]``; 0 where nothing is relevant."""
    return block.ranks[:, 0] if block.ranks.size else np.zeros(len(block.rows), dtype=np.int64)
