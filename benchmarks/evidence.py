"""What is kept of the rankings of one direction: AP, first ranks, the first items, and precision by recall."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from xshot_bench.benchmarks import metrics, ranks
from xshot_bench.benchmarks.device_ranks import DeviceRanker
from xshot_bench.benchmarks.episode import Key

FIRST = 10  # items kept of each ranking
NEAR = "cpu", "mps"  # devices whose scores are ranked on the CPU
SHORT_LIST = metrics.Cutoff(50)  # mAP_50, divided by all relevant items as trec_eval does


class Evidence:
    """Collects the rankings of one direction, a block of queries at a time; each is made once.

    ap, short: AP of each query ``[Q]`` over the whole ranking and over its first 50; NaN without a relevant item.
    rank: of the query's own pair, or of the first relevant item where every one counts as its own ``[Q]``; 0 without.
    """

    def __init__(self, key: Key) -> None:
        self._key, queries = key, len(key.query_label)
        self.ap, self.short = np.full(queries, np.nan), np.full(queries, np.nan)
        self.rank = np.zeros(queries, dtype=np.int64)
        self._first = np.empty((queries, min(FIRST, len(key.gallery_label))), dtype=np.int64)
        self._precision = np.full((queries, 11), np.nan)
        self._done = 0
        self._ranker: DeviceRanker | None = None

    def add(self, scores: Tensor) -> None:
        """Scores ``[n,G]`` (float32) of the next queries against the gallery; ranked by the GPU if they lie there."""
        key, start = self._key, self._done
        own = slice(start, start + len(scores))
        if scores.device.type in NEAR:
            here = scores.cpu().numpy()
            blocks = ranks.ranked(here, key.query_label[own], key.gallery_label)
            pair_ranks = partial(metrics.pair_ranks, here)
        else:
            self._ranker = self._ranker or DeviceRanker(key.gallery_label, scores.device)
            blocks = self._ranker.ranked(scores, key.query_label[own])
            pair_ranks = partial(self._ranker.pair_ranks, scores)
        for block in blocks:
            rows = start + block.rows
            self.ap[rows], self.short[rows] = metrics.average(block), metrics.average(block, SHORT_LIST)
            self.rank[rows] = metrics.first_rank(block)
            self._first[rows] = block.first(FIRST)
            self._precision[rows] = metrics.precision_by_recall(block)
        if key.pair is not None:
            self.rank[own] = pair_ranks(key.pair[own])
        self._done += len(scores)

    def first(self) -> tuple[list[list[str]], list[list[bool]]]:
        """Of every stored query, the ids of the items ranked first, and which of them are relevant."""
        key = self._key
        shown = np.unique(key.unit, return_index=True)[1]  # the first query that is counted under each item
        first, label = self._first[shown], key.query_label[shown, None]
        return np.array(key.gallery_ids, dtype=object)[first].tolist(), (key.gallery_label[first] == label).tolist()

    def precision(self) -> list[float]:
        """The mean over the queries at recall 0, 0.1, ..., 1."""
        mean: list[float] = np.nanmean(self._precision, axis=0).round(5).tolist()
        return mean
