"""Scores + labels -> average precision and ranks, one number a query. Exact, ties included; NumPy only.

A ranking is the gallery by descending score. Equal scores stand in item order after a seeded shuffle of the gallery,
so that a gallery listed class by class favours nobody and every run of a program sees the same ranking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

BLOCK = 2**18  # scores worked on at once: keys and work space stay in a core's cache
MANY = 16  # groups of equal scores in a row that are mended one by one; a row with more is sorted anew


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
    for rows, ranks in _relevant_ranks(scores, query_label, gallery_label, tie_seed):
        ap[rows] = _average(ranks, cutoff)
    return ap


def interpolated_precision(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0
) -> np.ndarray:
    """Precision of each query at recall 0, 0.1, ..., 1 ``[Q,11]``; NaN for a query without a relevant item.

    The highest precision at that recall or a later one, as trec_eval's ``iprec_at_recall``. Arguments and errors as in
    `average_precision`.
    """
    found = np.full((len(query_label), 11), np.nan)
    for rows, ranks in _relevant_ranks(scores, query_label, gallery_label, tie_seed):
        size = ranks.shape[1]
        precision = np.arange(1, size + 1) / ranks
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        found[rows] = highest[:, [max(-(-level * size // 10), 1) - 1 for level in range(11)]]
    return found


def first_items(scores: np.ndarray, k: int, tie_seed: int = 0) -> np.ndarray:
    """The positions of the first ``k`` items of each ranking, ``[Q,min(k,G)]``. Finite scores ``[Q,G]``."""
    k = min(k, scores.shape[1])
    place = _shuffled_places(scores.shape[1], tie_seed)
    found = np.empty((len(scores), k), dtype=np.int64)
    if k:
        least = np.partition(scores, -k, axis=1)[:, -k]
        for i, row in enumerate(scores):
            reaching = np.flatnonzero(row >= least[i])  # more than k where several items tie for the last place
            found[i] = reaching[np.lexsort((place[reaching], -row[reaching]))[:k]]
    return found


def pair_ranks(scores: np.ndarray, pair: np.ndarray, tie_seed: int = 0) -> np.ndarray:
    """The rank ``[Q]`` (from 1) of each query's own pair, the gallery item at ``pair [Q]``; 0 where ``pair`` is -1.

    R@k is the share of ranks up to k among those above 0. scores ``[Q,G]`` and errors as in `average_precision`.
    """
    pair = np.asarray(pair)
    scores = _checked(scores, (len(pair), scores.shape[-1]))
    _require_finite(scores)
    place = _shuffled_places(scores.shape[1], tie_seed)
    ranks = np.zeros(len(pair), dtype=np.int64)
    present = np.flatnonzero(pair >= 0)
    for start in range(0, len(present), _block_rows(scores)):
        rows = present[start : start + _block_rows(scores)]
        block, own = scores[rows], pair[rows, None]
        value = np.take_along_axis(block, own, axis=1)
        before = (block > value) | ((block == value) & (place < place[own]))
        ranks[rows] = 1 + before.sum(1)
    return ranks


def first_ranks(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0
) -> np.ndarray:
    """The rank ``[Q]`` (from 1) of the first relevant item of each query; 0 for a query without one.

    With several relevant items a query, R@k is the share of these ranks up to k. Arguments and errors as in
    `average_precision`.
    """
    found = np.zeros(len(query_label), dtype=np.int64)
    for rows, ranks in _relevant_ranks(scores, query_label, gallery_label, tie_seed):
        found[rows] = ranks[:, 0]
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


def _relevant_ranks(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Queries ``[n]`` with the ascending ranks ``[n,R]`` of what is relevant; those without any are left out."""
    scores = _checked(scores, (len(query_label), len(gallery_label)))
    ranker = _Ranker(scores, tie_seed)
    for label in np.unique(query_label):
        relevant = np.asarray(gallery_label) == label
        rows = np.flatnonzero(np.asarray(query_label) == label)
        if not relevant.any():
            _require_finite(scores[rows])
            continue
        for start in range(0, len(rows), ranker.rows):
            block = rows[start : start + ranker.rows]
            yield block, ranker.ranks(block, relevant)


class _Ranker:
    """Ranks of relevant items, for blocks of rows of a score matrix.

    Sorting values is several times faster than sorting positions. So each score becomes an integer of the same order
    with a mark as its last bit, relevant or not; the marks of the sorted integers say which ranks are relevant. Scores
    below 2 leave a bit free for it; others give up their last one. Where the mark may have decided (equal scores, or
    neighbours among the floats that gave up a bit), the true order is looked up.
    """

    def __init__(self, scores: np.ndarray, tie_seed: int) -> None:
        self.scores = scores
        self.integer = np.int32 if scores.itemsize == 4 else np.int64
        self.infinity, self.two = (int(np.array(value, scores.dtype).view(self.integer)) for value in (np.inf, 2))
        self.place = _shuffled_places(scores.shape[1], tie_seed)
        self.rows = _block_rows(scores)
        shape = (min(self.rows, len(scores)), scores.shape[1])
        # allocated once: the first touch of fresh memory costs more than the arithmetic
        self.work = np.empty(shape, self.integer), np.empty(shape, self.integer)
        self.marks = np.empty(shape[0] * shape[1] * 10 // 9 + 2, np.int8)

    def ranks(self, rows: np.ndarray, relevant: np.ndarray) -> np.ndarray:
        """The ascending ranks ``[n,R]`` (from 1) of the ``relevant [G]`` items for the queries ``rows [n]``."""
        keys, spare = (buffer[: len(rows)] for buffer in self.work)
        np.take(self.scores, rows, axis=0, out=keys.view(self.scores.dtype), mode="clip")  # unbuffered in this mode
        _to_keys(keys, spare)
        low, high = int(keys.min()), int(keys.max())
        if low < -self.infinity or high >= self.infinity:
            _require_finite(self.scores)
        small = -self.two <= low and high < self.two
        _make_room(keys, small)
        keys |= relevant.astype(self.integer)
        keys.sort(axis=1)
        found = self._marked(keys, len(rows) * int(relevant.sum()))
        before = keys.ravel().take(found - 1, mode="wrap")
        before ^= keys.ravel().take(found)
        unsure = np.flatnonzero(before == 1)
        found = found.reshape(len(rows), -1)
        found -= (np.arange(len(rows)) * keys.shape[1])[:, None]
        row, first = np.divmod(unsure, found.shape[1])
        crowded = np.bincount(row, minlength=len(rows)) > MANY
        for i in np.flatnonzero(crowded):
            found[i] = np.flatnonzero(relevant[np.lexsort((self.place, np.negative(self.scores[rows[i]])))])
        for i, j in zip(row[~crowded[row]], first[~crowded[row]], strict=True):
            self._mend(found[i, j:], self.scores[rows[i]], relevant, keys[i], small)
        found += 1
        return found

    def _marked(self, keys: np.ndarray, count: int) -> np.ndarray:
        """The flat positions of the ``count`` of ``keys [n,G]`` that bear the mark."""
        tail = max(0, keys.size // 9 + 1 - count)  # NumPy finds marks several times faster where over a tenth are set
        marks = self.marks[: keys.size + tail]
        np.copyto(marks[: keys.size], keys.ravel(), casting="unsafe")
        marks &= 1
        marks[keys.size :] = 1
        return np.flatnonzero(marks.view(bool))[:count]

    def _mend(self, found: np.ndarray, scores: np.ndarray, relevant: np.ndarray, keys: np.ndarray, small: bool) -> None:
        """Correct the first of the places ``found`` in a row of sorted ``keys [G]``: those in the group of one key.

        In such a group the relevant items were put last; here they get their places among all members of the group.
        """
        own = scores.view(self.integer).copy()
        _to_keys(own, np.empty_like(own))
        _make_room(own, small)
        members = np.flatnonzero(np.bitwise_or(own, 1) == keys[found[0]])
        order = np.lexsort((self.place[members], np.negative(scores[members])))
        within = np.flatnonzero(relevant[members[order]])
        found[: len(within)] = found[0] - (len(members) - len(within)) + within


def _to_keys(bits: np.ndarray, spare: np.ndarray) -> None:
    """Turn the bits of floats, in place, into integers that ascend as the floats descend; ±0 become one integer."""
    values = bits.view(f"f{bits.itemsize}")
    np.subtract(0, values, out=values)
    np.right_shift(bits, 8 * bits.itemsize - 1, out=spare)
    np.bitwise_and(spare, np.iinfo(bits.dtype).max, out=spare)
    np.bitwise_xor(bits, spare, out=bits)


def _make_room(keys: np.ndarray, small: bool) -> None:
    """Free the last bit of integers for the mark, in place; those of ``small`` scores lose nothing."""
    if small:
        keys <<= 1
    else:
        keys &= -2


def _average(ranks: np.ndarray, cutoff: Cutoff | None) -> np.ndarray:
    """AP ``[n]`` from the ascending ranks ``[n,R]`` of all relevant items."""
    precision = np.arange(1, ranks.shape[1] + 1) / ranks
    if cutoff is None:
        return precision.mean(1)
    within = ranks <= cutoff.k
    divisor = ranks.shape[1] if cutoff.denominator == "relevant" else np.maximum(within.sum(1), 1)
    return (precision * within).sum(1) / divisor


def _shuffled_places(items: int, seed: int) -> np.ndarray:
    """Each gallery item's place ``[G]`` in the shuffled gallery."""
    return np.random.default_rng(seed).permutation(items)


def _block_rows(scores: np.ndarray) -> int:
    return max(1, BLOCK // max(1, scores.shape[1]))


def _require_finite(scores: np.ndarray) -> None:
    size = _block_rows(scores)
    blocks = (scores[start : start + size] for start in range(0, len(scores), size))
    bad = sum(block.size - np.count_nonzero(np.isfinite(block)) for block in blocks)
    if bad:
        raise ValueError(f"{bad} of {scores.size} scores are not finite")


def _checked(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The scores as C-ordered float32 or float64, if they have this shape."""
    if scores.shape != shape:
        raise ValueError(f"scores have shape {scores.shape} where {shape} (queries, gallery) was expected")
    return np.ascontiguousarray(scores, dtype=np.result_type(scores, np.float32))
