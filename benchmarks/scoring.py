"""A fitted method + unlabelled items -> scores, by the one rule that the method declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from xshot_bench.benchmarks.episode import OnDisk, Unlabelled
from xshot_bench.benchmarks.protocol import Direction
from xshot_bench.datasets.scratch import room
from xshot_bench.methods.base import MODALITIES, EmbeddingMethod, Method, Modality, PairMethod, PosteriorMethod, Task
from xshot_bench.methods.calibration import posteriors, spread

ROWS = 1024  # items that a method represents at once, and the most queries whose scores are handed over at once
TILE = 128  # queries multiplied with the gallery at once; the tiles' sizes decide the last bits, so they are fixed
BUDGET = 2**29  # bytes of the scores that are handed over at once; but a tile of queries, if that is more
KEPT = 2**31  # bytes of a represented gallery that are kept in memory
PAIR_IMAGES = 256  # images at once where a method scores pairs: their tokens are large
PAIR_TEXTS = 512, 4096  # texts at once with them, as queries and as gallery


class ScoringError(Exception):
    """A method returned something that cannot be ranked."""


def modalities(direction: Direction) -> tuple[Modality, Modality]:
    """The modality of the queries, and of the gallery."""
    return ("image", "text") if direction == "i2t" else ("text", "image")


def score_blocks(
    method: Method, task: Task, queries: Unlabelled, gallery: Unlabelled, direction: Direction
) -> Iterator[Tensor]:
    """Scores ``[rows,G]`` of the queries against the whole gallery, in order: float32, where the task is.

    Larger is more similar. How many rows are handed over at once depends on the gallery's size, what is computed at
    once does not: a score is the same, to the last bit, however the queries are cut. A block that the caller lets go is
    free before the next.
    """
    asking, answering = modalities(direction)
    if method.scoring == "pairs":
        step = PAIR_IMAGES if asking == "image" else PAIR_TEXTS[0]
        for start in range(0, len(queries[asking]), step):
            yield _pair_block(cast(PairMethod, method), queries, gallery, direction, slice(start, start + step))
        return
    represent = {modality: Representation(method, task, modality) for modality in (asking, answering)}
    columns = _represented(represent[answering], gallery[answering]).T
    tiles = max(1, min(ROWS, BUDGET // (4 * columns.shape[1])) // TILE)
    for start in range(0, len(queries[asking]), ROWS):
        for some in represent[asking](queries[asking][start : start + ROWS]).split(tiles * TILE):
            yield _products(some, columns)


@torch.no_grad()
def _represented(represent: Representation, items: Tensor | OnDisk) -> Tensor:
    """All items, ``[G,e]``: what is kept of the gallery; in a temporary file where it is larger than ``KEPT``."""
    kept = torch.empty(0)
    for start in range(0, len(items), ROWS):
        block = represent(items[start : start + ROWS])
        if not start:
            kept = _room(len(items), block)
        kept[start : start + ROWS] = block
    return kept


def _room(rows: int, like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return like.new_empty(rows, like.shape[1])
    return torch.from_numpy(room((rows, like.shape[1]), kept=KEPT))


@torch.no_grad()
def _products(queries: Tensor, columns: Tensor) -> Tensor:
    """Scores ``[n,G]`` of represented queries ``[n,e]`` with the gallery's ``columns [e,G]``, a tile at a time."""
    tiles = pad(queries, (0, 0, 0, -len(queries) % TILE)).split(TILE)
    scores = columns.new_empty(TILE * len(tiles), columns.shape[1])
    for tile, part in zip(tiles, scores.split(TILE), strict=True):
        torch.mm(tile, columns, out=part)
    return scores[: len(queries)]


@torch.no_grad()
def _pair_block(
    method: PairMethod, queries: Unlabelled, gallery: Unlabelled, direction: Direction, rows: slice
) -> Tensor:
    """Scores ``[n,G]`` of some queries, images and texts taken by tiles of one size."""
    asking, answering = modalities(direction)
    count = len(range(*rows.indices(len(queries[asking]))))
    scores = torch.empty(count, len(gallery[answering]), device=queries[asking][:0].device)
    asked = queries.text[rows] if asking == "text" else None
    step = PAIR_TEXTS[1] if asked is None else PAIR_IMAGES
    for start in range(0, scores.shape[1], step):
        some = slice(start, start + step)
        if asked is None:
            part = _pair_scores(method, queries, rows, gallery.text[some])
        else:
            part = _pair_scores(method, gallery, some, asked).T
        scores[:, some] = part
    return scores


@torch.no_grad()
def accuracy(method: Method, task: Task, queries: Unlabelled, label: np.ndarray) -> float:
    """Top-1 accuracy of the image queries against the candidate classes (``label [Q]`` are class indices).

    A posterior names its largest class; other methods compare with the class prompts as they do with texts. NaN
    where a method needs prompts and the task has none. Ties go to the first candidate.
    """
    if method.scoring != "posterior" and not task.class_text.shape[1]:
        return float("nan")
    named: list[Tensor] = []
    for start in range(0, len(queries.image), PAIR_IMAGES):
        rows = slice(start, start + PAIR_IMAGES)
        if method.scoring == "posterior":
            scores = cast(PosteriorMethod, method).logits(queries.image[rows], "image")
            scores = _checked(method, scores, len(queries.image[rows]), len(task.candidates))
        elif method.scoring == "pairs":
            scores = _pair_scores(cast(PairMethod, method), queries, rows, task.class_text[task.candidates])
        else:
            image, text = (Representation(method, task, modality) for modality in MODALITIES)
            scores = image(queries.image[rows]) @ text(task.class_text[task.candidates]).T
        named.append(task.candidates[scores.argmax(1)])
    return float((torch.cat(named).cpu().numpy() == label).mean())


def _pair_scores(method: PairMethod, images: Unlabelled, rows: slice, texts: Tensor) -> Tensor:
    """The scores of some images, with their tokens, against texts."""
    tokens = None if images.tokens is None else normalize(images.tokens[rows].float(), dim=-1)
    image = images.image[rows]
    return _checked(method, method.score(image, texts, tokens), len(image), len(texts))


class Representation:
    """Maps items of one modality to vectors whose dot product is the score.

    Cosine: embeddings of unit length. Posterior: class posteriors ``softmax(SHARPNESS · z / s)``, where ``s`` is the
    root mean square of the row-centred logits of the labelled source items: one rule for all methods, which looks at
    no test item and no label. Without a source they are the support's, and without that those of the class prompts.
    The dot product is the probability that two independent guesses name one class.
    """

    def __init__(self, method: Method, task: Task, modality: Modality) -> None:
        self.method, self.task, self.modality = method, task, modality
        self.spread: Tensor | None = None
        if method.scoring == "posterior":
            known = next((pairs[modality] for pairs in (task.source, task.support) if len(pairs)), task.class_text)
            self.spread = spread(torch.cat([self._logits(block) for block in known.split(ROWS)]))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if self.spread is not None:
            return posteriors(self._logits(x), self.spread)
        embedded = cast(EmbeddingMethod, self.method).embed(x, self.modality)
        return normalize(_checked(self.method, embedded, len(x)).float(), dim=1)

    @torch.no_grad()
    def _logits(self, x: Tensor) -> Tensor:
        logits = cast(PosteriorMethod, self.method).logits(x, self.modality)
        return _checked(self.method, logits, len(x), len(self.task.candidates)).float()


def _checked(method: Method, out: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """The output, if its shape is ``[rows, columns]`` and all of it is finite."""
    name = type(method).__name__
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != rows or columns not in (None, out.shape[1]):
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ScoringError(f"{name} returned {shape} where [{rows}, {columns or 'e'}] was expected")
    bad = int((~torch.isfinite(out)).sum())
    if bad:
        raise ScoringError(f"{name} returned {bad} values that are not finite")
    return out
