"""The rankings of ``ranks.py`` of scores that lie on a GPU, found there: the same ranks and items.

Score and place in the shuffled gallery become one integer, so no two are equal, and sorted they are the ranking. That
is many times the work of sorting values, as ``ranks.py`` does on a processor; a GPU still has it done sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from xshot_bench.benchmarks.ranks import Ranked, not_finite, require_shape, shuffled_places

CHUNK = 2**24  # scores sorted at once: they take a gigabyte of work space
PLACE = 2**32 - 1  # the bits of a key that are the place


def ranked(scores: Tensor, query_label: np.ndarray, gallery_label: np.ndarray, tie_seed: int = 0) -> Iterator[Ranked]:
    """Every query once, in blocks of one label. Scores ``[Q,G]`` are float32; else as `ranks.ranked`."""
    _require(scores, (len(query_label), len(gallery_label)))
    query_label, gallery_label = np.asarray(query_label), np.asarray(gallery_label)
    place = shuffled_places(scores.shape[1], tie_seed)
    item = np.argsort(place)  # the item at each place
    label = _like(scores, gallery_label[item])
    order = np.argsort(query_label, kind="stable")
    for rows in _chunks(order, scores.shape[1]):
        places = _keys(scores, rows, place).sort(dim=1).values.bitwise_and_(PLACE)
        own = query_label[rows]
        query, rank = (label[places] == _like(scores, own)[:, None]).nonzero().cpu().numpy().T
        for one in np.unique(own):
            block = np.flatnonzero(own == one)
            ranks = rank[slice(*np.searchsorted(query, (block[0], block[-1] + 1)))].reshape(len(block), -1) + 1
            yield Ranked(rows[block], ranks, partial(_first, item, places[block[0] : block[-1] + 1]))


def pair_ranks(scores: Tensor, pair: np.ndarray, tie_seed: int = 0) -> np.ndarray:
    """The rank ``[Q]`` of each query's own pair; scores ``[Q,G]`` are float32, else as `metrics.pair_ranks`."""
    _require(scores, (len(pair), scores.shape[-1]))
    place = shuffled_places(scores.shape[1], tie_seed)
    ranks = np.zeros(len(pair), dtype=np.int64)
    for rows in _chunks(np.flatnonzero(pair >= 0), scores.shape[1]):
        keys = _keys(scores, rows, place)
        own = keys.gather(1, _like(scores, pair[rows])[:, None])
        ranks[rows] = 1 + (keys < own).sum(1).cpu().numpy()
    return ranks


def _require(scores: Tensor, shape: tuple[int, int]) -> None:
    require_shape(tuple(scores.shape), shape)
    if bad := int((~scores.isfinite()).sum()):
        raise not_finite(bad, scores.numel())


def _chunks(rows: np.ndarray, items: int) -> Iterator[np.ndarray]:
    size = max(1, CHUNK // max(1, items))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _keys(scores: Tensor, rows: np.ndarray, place: np.ndarray) -> Tensor:
    """Integers ``[n,G]`` that ascend along each of the rankings ``rows [n]``; ±0 are one score."""
    bits = (0 - scores[_like(scores, rows)]).view(torch.int32)
    bits ^= (bits >> 31) & (2**31 - 1)  # now they ascend as the scores descend, below zero too
    return (bits.long() << 32).bitwise_or_(_like(scores, place))


def _first(item: np.ndarray, places: Tensor, k: int) -> np.ndarray:
    return item[places[:, :k].cpu().numpy()]


def _like(scores: Tensor, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(scores.device)
