"""The rankings of ``ranks.py`` of scores that lie on a GPU, found there: the same ranks and items.

A ranking is a stable sort of the scores in the order of the shuffled gallery. That is several times the work of sorting
values alone, as ``ranks.py`` does on a processor; a GPU still has it done sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from xshot_bench.benchmarks.ranks import Ranked, not_finite, require_shape, shuffled_places

CHUNK = 2**24  # scores sorted at once: they take half a gigabyte of work space


class DeviceRanker:
    """Ranks one gallery for any number of queries.

    gallery_label ``[G]``. Scores ``[Q,G]`` are float32 on the ``device``; larger is more similar. `ValueError` for
    scores that are not finite or not of that shape.
    """

    def __init__(self, gallery_label: np.ndarray, device: torch.device, tie_seed: int = 0) -> None:
        self.device, place = device, shuffled_places(len(gallery_label), tie_seed)
        self._item = np.empty_like(place)  # the item at each place
        self._item[place] = np.arange(len(place))
        self._place, self._shuffled = self._there(place), self._there(self._item)
        self._label = self._there(np.asarray(gallery_label)[self._item])

    def ranked(self, scores: Tensor, query_label: np.ndarray) -> Iterator[Ranked]:
        """Every query once, in blocks of one label, as `ranks.ranked` gives them; labels ``[Q]``."""
        self._require(scores, len(query_label))
        order = np.argsort(query_label, kind="stable")
        for rows in self._chunks(order):
            places = self._sorted(scores[self._there(rows)])
            own = query_label[rows]
            query, rank = (self._label[places] == self._there(own)[:, None]).nonzero().cpu().numpy().T
            for first, count in zip(*np.unique(own, return_index=True, return_counts=True)[1:], strict=True):
                there = slice(first, first + count)  # one label's
                ranks = rank[slice(*np.searchsorted(query, (first, first + count)))].reshape(count, -1) + 1
                yield Ranked(rows[there], ranks, partial(self._first, places[there]))

    def pair_ranks(self, scores: Tensor, pair: np.ndarray) -> np.ndarray:
        """The rank ``[Q]`` of each query's own pair, as `metrics.pair_ranks` gives it."""
        self._require(scores, len(pair))
        ranks = np.zeros(len(pair), dtype=np.int64)
        for rows in self._chunks(np.flatnonzero(pair >= 0)):
            some, item = scores[self._there(rows)], self._there(pair[rows])[:, None]
            own = some.gather(1, item)
            before = (some > own) | ((some == own) & (self._place < self._place[item]))
            ranks[rows] = 1 + before.sum(1).cpu().numpy()
        return ranks

    def _sorted(self, scores: Tensor) -> Tensor:
        """The places ``[n,G]`` along each ranking; ±0 are one score."""
        return (scores[:, self._shuffled] + 0).sort(dim=1, descending=True, stable=True).indices

    def _first(self, places: Tensor, k: int) -> np.ndarray:
        return self._item[places[:, :k].cpu().numpy()]

    def _chunks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        size = max(1, CHUNK // max(1, len(self._item)))
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _require(self, scores: Tensor, queries: int) -> None:
        require_shape(tuple(scores.shape), (queries, len(self._item)))
        if not scores.isfinite().all():
            raise not_finite(int((~scores.isfinite()).sum()), scores.numel())

    def _there(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.device)
