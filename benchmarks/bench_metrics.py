"""The speed of the metric: ``python -m xshot_bench.benchmarks.bench_metrics``.

AP of 1,000 queries × 10,000 items (float32), beside NumPy's sort of the same values and torchmetrics' AP. All take
turns in one process on one thread; the times are the best of their turns, which other work on the machine moves least.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tabulate import tabulate
from torchmetrics.functional.retrieval import retrieval_average_precision

from xshot_bench.benchmarks.metrics import average_precision

QUERIES, GALLERY, TURNS = 1_000, 10_000, 9


def cosines(rng: np.random.Generator) -> np.ndarray:
    """Scores as a method makes them: cosines of random unit vectors, ``[QUERIES, GALLERY]``."""
    items = rng.standard_normal((QUERIES + GALLERY, 512), dtype=np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return items[:QUERIES] @ items[QUERIES:].T


def peer(scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray) -> np.ndarray:
    """AP of each query by torchmetrics. It takes scores of 0 and less as not retrieved, so they are shifted."""
    shifted, labels = torch.from_numpy(scores - scores.min() + 1), torch.from_numpy(gallery_label)
    return np.array(
        [
            float(retrieval_average_precision(row, labels == int(label)))
            for row, label in zip(shifted, query_label, strict=True)
        ]
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scores = cosines(rng)
    rows = []
    for classes in (10, 20, 50, 100):
        query_label, gallery_label = rng.integers(classes, size=QUERIES), rng.integers(classes, size=GALLERY)
        data = (scores, query_label, gallery_label)
        work: tuple[Callable[[], object], ...] = (
            partial(np.sort, scores, axis=1),
            partial(average_precision, *data),
            partial(peer, *data),
        )
        sort, ours, theirs = np.min([[seconds(w) for w in work] for _ in range(TURNS)], axis=0)
        rows.append((classes, sort, ours, theirs, ours / sort, theirs / ours))
    print(tabulate(rows, ["classes", "sort s", "ours s", "torchmetrics s", "ours / sort", "torchmetrics / ours"]))


if __name__ == "__main__":
    main()
