"""What is kept of the rankings beside their AP, so that they can be shown: the first items, and precision by recall."""

from __future__ import annotations

import numpy as np

from xshot_bench.benchmarks import metrics
from xshot_bench.benchmarks.episode import Key

FIRST = 10  # items kept of each ranking


class Evidence:
    """Collects the rankings of one direction, a block of queries at a time."""

    def __init__(self, key: Key) -> None:
        self._gallery_ids = np.array(key.gallery_ids, dtype=object)
        self._shown = np.unique(key.unit, return_index=True)[1]  # the first query that is counted under each item
        self._first: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._precision: list[np.ndarray] = []

    def add(self, scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray) -> None:
        """Scores ``[n,G]`` of the next queries with their labels ``[n]``, and the gallery's ``[G]``."""
        places = metrics.first_items(scores, FIRST)
        self._first.append(self._gallery_ids[places])
        self._right.append(gallery_label[places] == query_label[:, None])
        self._precision.append(metrics.interpolated_precision(scores, query_label, gallery_label))

    def first(self) -> tuple[list[list[str]], list[list[bool]]]:
        """Of every stored query, the ids of the items ranked first, and which of them are relevant."""
        first, right = np.concatenate(self._first), np.concatenate(self._right)
        return first[self._shown].tolist(), right[self._shown].tolist()

    def precision(self) -> list[float]:
        """The mean over the queries at recall 0, 0.1, ..., 1."""
        mean: list[float] = np.nanmean(np.concatenate(self._precision), axis=0).round(5).tolist()
        return mean
