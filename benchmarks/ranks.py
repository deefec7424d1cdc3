"""Scores + labels -> the ranks of what is relevant. Exact, ties included; NumPy only. What they mean: ``metrics.py``.

On a GPU ``device_ranks.py`` finds the same.

A ranking is the gallery by descending score. Equal scores stand in item order after a seeded shuffle of the gallery,
so that a gallery listed class by class favours nobody and every run of a program sees the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

BLOCK = 2**18  # scores worked on at once: keys and work space stay near the core
MANY = 10  # groups of equal scores a row, on average, that are mended one by one; more are mended a row at once
AHEAD = 16  # integers before the first key, so that each has one before it; the keys stay aligned
HASH = 2**16 - 1  # bits of a score by which those that may be looked for are told from the rest


@dataclass(frozen=True)
class Ranked:
    """Some queries of one label: their rows ``[n]`` and the ascending ranks ``[n,R]`` (from 1) of what is relevant.

    R may be 0. ``first`` belongs to the block that was made last: ask before the next one.
    """

    rows: np.ndarray
    ranks: np.ndarray
    _first: Callable[[int], np.ndarray]

    @cached_property
    def precision(self) -> np.ndarray:
        """The precision at each of the ranks, ``[n,R]``."""
        precision: np.ndarray = np.arange(1.0, self.ranks.shape[1] + 1) / self.ranks
        return precision

    def first(self, k: int) -> np.ndarray:
        """The positions in the gallery of the first ``k`` items of each ranking, ``[n,min(k,G)]``."""
        return self._first(k)


def ranked(
    scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0
) -> Iterator[Ranked]:
    """Every query once, in blocks of one label; each row of scores is sorted once.

    scores ``[Q,G]``, larger is more similar; labels ``[Q]`` and ``[G]``: relevant is what has the query's label.
    Raises `ValueError` for scores that are not finite or not of shape ``[Q,G]``.
    """
    scores = checked(scores, (len(query_label), len(gallery_label)))
    ranker = _Ranker(scores, shuffled_places(scores.shape[1], tie_seed))
    for label in np.unique(query_label):
        relevant = np.asarray(gallery_label) == label
        rows = np.flatnonzero(np.asarray(query_label) == label)
        for start in range(0, len(rows), ranker.rows):
            block = rows[start : start + ranker.rows]
            yield Ranked(block, ranker.ranks(block, relevant), partial(ranker.first, block))


def shuffled_places(items: int, seed: int) -> np.ndarray:
    """Each gallery item's place ``[G]`` in the shuffled gallery."""
    return np.random.default_rng(seed).permutation(items)


def checked(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The scores as C-ordered float32 or float64, if they have this shape."""
    require_shape(scores.shape, shape)
    return np.ascontiguousarray(scores, dtype=np.result_type(scores, np.float32))


def require_shape(found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if found != expected:
        raise ValueError(f"scores have shape {found} where {expected} (queries, gallery) was expected")


def require_finite(scores: np.ndarray) -> None:
    size = max(1, BLOCK // max(1, scores.shape[1]))
    blocks = (scores[start : start + size] for start in range(0, len(scores), size))
    bad = sum(block.size - int(np.count_nonzero(np.isfinite(block))) for block in blocks)
    if bad:
        raise not_finite(bad, scores.size)


def not_finite(bad: int, scores: int) -> ValueError:
    return ValueError(f"{bad} of {scores} scores are not finite")


class _Ranker:
    """Ranks of relevant items, for blocks of rows of a score matrix.

    Sorting values is several times faster than sorting positions. So each score becomes an integer that ascends as the
    score descends, with a mark as its last bit, relevant or not; the marks of the sorted integers say which ranks are
    relevant. Scores below 2 leave a bit free for it; others give up their last one. Where the mark may have decided
    (equal scores, or neighbours among the floats that gave up a bit), the true order is looked up.
    """

    def __init__(self, scores: np.ndarray, place: np.ndarray) -> None:
        self.scores, self.place = scores, place
        self.item = np.empty_like(place)  # the item at each place
        self.item[place] = np.arange(len(place))
        self.rows = max(1, BLOCK // max(1, scores.shape[1]))
        shape = (min(self.rows, len(scores)), scores.shape[1])
        integer = np.int32 if scores.itemsize == 4 else np.int64
        # allocated once: the first touch of fresh memory costs more than the arithmetic
        self.padded, self.spare = np.empty(AHEAD + shape[0] * shape[1], integer), np.empty(shape, integer)
        self.keys = self.padded[AHEAD:].reshape(shape)
        self.marks = np.zeros(-(-self.keys.size // 8) * 8, np.int8)
        self.small = True

    def ranks(self, rows: np.ndarray, relevant: np.ndarray) -> np.ndarray:
        """The ascending ranks ``[n,R]`` (from 1) of the ``relevant [G]`` items for the queries ``rows [n]``."""
        keys, spare = self.keys[: len(rows)], self.spare[: len(rows)]
        np.take(self.scores, rows, axis=0, out=keys.view(self.scores.dtype), mode="clip")  # unbuffered in this mode
        self.small = _to_keys(keys, spare)
        if not self.small and not np.isfinite(self.scores[rows]).all():
            require_finite(self.scores)
        keys |= relevant.astype(keys.dtype)
        keys.sort(axis=1)
        found = self._marked(keys, len(rows) * int(relevant.sum()))
        before = self.padded[AHEAD - 1 :].take(found)
        before ^= keys.ravel().take(found)
        unsure = np.flatnonzero(before == 1)
        if len(unsure):
            self._mend(found, unsure, rows, relevant)
        found = found.reshape(len(rows), -1)
        found -= (np.arange(len(rows)) * keys.shape[1] - 1)[:, None]
        return found

    def first(self, rows: np.ndarray, k: int) -> np.ndarray:
        """The first ``k`` items of the rankings that were made last, those of the queries ``rows``."""
        k = min(k, self.keys.shape[1])
        found = np.empty((len(rows), k), dtype=np.int64)
        if k:
            least = self._values(self.keys[: len(rows), k - 1])[:, -1]
            for i, row in enumerate(rows):
                reaching = np.flatnonzero(self.scores[row] >= least[i])  # more than k where several tie for the last
                found[i] = reaching[np.lexsort((self.place[reaching], -self.scores[row][reaching]))[:k]]
        return found

    def _marked(self, keys: np.ndarray, count: int) -> np.ndarray:
        """The flat positions of the ``count`` of ``keys [n,G]`` that bear the mark."""
        marks = self.marks[: keys.size]
        np.copyto(marks, keys.ravel(), casting="unsafe")
        marks &= 1
        if 10 * count >= keys.size:
            return marks.view(bool).nonzero()[0]
        end = -(-keys.size // 8) * 8
        self.marks[keys.size : end] = 0
        eights = self.marks[:end].view(np.int64)  # few have any
        some = (eights != 0).nonzero()[0]
        found = eights[some].view(bool).nonzero()[0]
        some -= np.arange(len(some))
        some *= 8
        found += some.take(found >> 3)
        return found

    def _mend(self, found: np.ndarray, unsure: np.ndarray, rows: np.ndarray, relevant: np.ndarray) -> None:
        """Correct ``found``, the flat positions of marks, for the groups of one key that begin at the ``unsure``.

        In such a group the relevant items were put last; here they get their places among all members of the group.
        """
        unsure = unsure[found[unsure] % self.keys.shape[1] > 0]  # what is before a row's first is of another row
        first = found[unsure]
        query, values = rows[first // self.keys.shape[1]], self._values(self.keys.ravel().take(first))
        if len(unsure) > MANY * len(rows):
            for row in np.unique(query):
                self._mend_row(found, unsure[query == row], values[query == row], self.scores[row], relevant)
            return
        place = self.place
        for at, row, value in zip(unsure.tolist(), query.tolist(), values, strict=True):
            members = np.concatenate([(self.scores[row] == one).nonzero()[0] for one in value])
            if len(members) > 2 or len(value) > 1:
                members = members[np.lexsort((place[members], -self.scores[row, members]))]
                right = relevant[members].nonzero()[0]
                found[at : at + len(right)] = found[at] - (len(members) - len(right)) + right
            elif relevant[members[0]] == (place[members[0]] < place[members[1]]):
                found[at] -= 1  # one of each, and the relevant one is before the other

    def _mend_row(
        self, found: np.ndarray, unsure: np.ndarray, values: np.ndarray, scores: np.ndarray, relevant: np.ndarray
    ) -> None:
        """The same for all groups of one row of ``scores [G]`` at once; ``values [m,w]`` as `_values` gives them."""
        items, number = _occurrences(scores, values.ravel())
        members = number * len(self.place) + self.place[items]
        members.sort()
        number, place = np.divmod(members, len(self.place))
        group, right = number // values.shape[1], relevant[self.item[place]]
        own = group[right]
        size, marked = np.bincount(group, minlength=len(unsure)), np.bincount(own, minlength=len(unsure))
        shift = found[unsure] - size.cumsum() + marked  # from a place among the members to one among the keys
        at = np.arange(len(own)) + (unsure - marked.cumsum() + marked)[own]
        found[at] = right.nonzero()[0] + shift[own]

    def _values(self, keys: np.ndarray) -> np.ndarray:
        """The scores ``[m,w]`` behind some ``keys [m]``, descending: one, or two neighbours where a bit was lost."""
        sign = keys >> 8 * keys.itemsize - 1
        most = np.iinfo(keys.dtype).max
        if self.small:
            bits = (((keys ^ sign & -2) >> 1 & most >> 1) | sign << 8 * keys.itemsize - 1)[:, None]
        else:
            bits = np.stack([keys & -2, keys | 1], axis=1)
            bits = bits + (sign & most)[:, None] ^ sign[:, None]
        return 0 - bits.view(self.scores.dtype)


def _occurrences(scores: np.ndarray, sought: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in ``scores [G]`` one of the descending values ``sought`` stands, and which of them."""
    bits = f"i{scores.itemsize}"
    table = np.zeros(HASH + 1, bool)
    table[sought.view(bits) & HASH] = True
    found = np.flatnonzero(table[scores.view(bits) & HASH])
    number = np.searchsorted(-sought, -scores[found]).clip(max=len(sought) - 1)
    same = sought[number] == scores[found]
    return found[same], number[same]


def _to_keys(bits: np.ndarray, spare: np.ndarray) -> bool:
    """Turn the bits of floats, in place, into even integers that ascend as the floats descend; ±0 become one integer.

    True if all are below 2, so that none lost a bit.
    """
    values, width = bits.view(f"f{bits.itemsize}"), 8 * bits.itemsize
    np.subtract(0, values, out=values)
    np.right_shift(bits, width - 2, out=spare)  # the sign, twice, and what only floats from 2 on have
    bits <<= 1
    small = bool(bits.min(initial=0) >= 0)
    if not small:
        spare >>= 1
        np.right_shift(bits.view(f"u{bits.itemsize}"), 1, out=bits.view(f"u{bits.itemsize}"))
    bits ^= spare
    if not small:
        bits -= spare
        bits &= -2
    return small
