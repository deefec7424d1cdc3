"""A fitted method + unlabelled items -> scores, by the one rule that the method declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.benchmarks.episode import Unlabelled
from xshot_bench.benchmarks.protocol import Direction
from xshot_bench.methods.base import MODALITIES, EmbeddingMethod, Method, Modality, PairMethod, PosteriorMethod, Task
from xshot_bench.methods.calibration import posteriors, spread

ROWS = 1024  # queries scored at once
PAIR_ROWS = 256  # images at once where a method scores pairs: their tokens are large


class ScoringError(Exception):
    """A method returned something that cannot be ranked."""


def modalities(direction: Direction) -> tuple[Modality, Modality]:
    """The modality of the queries, and of the gallery."""
    return ("image", "text") if direction == "i2t" else ("text", "image")


@torch.no_grad()
def score_blocks(
    method: Method, task: Task, queries: Unlabelled, gallery: Unlabelled, direction: Direction
) -> Iterator[np.ndarray]:
    """Scores ``[rows,G]`` (float32, larger is more similar) of the queries against the whole gallery, in order."""
    asking, answering = modalities(direction)
    if method.scoring == "pairs":
        pairs = cast(PairMethod, method)
        if asking == "image":
            for start in range(0, len(queries.image), PAIR_ROWS):
                yield _pair_scores(pairs, queries, slice(start, start + PAIR_ROWS), gallery.text).float().cpu().numpy()
            return
        starts = range(0, len(gallery.image), PAIR_ROWS)
        for block in queries.text.split(ROWS):
            blocks = [_pair_scores(pairs, gallery, slice(start, start + PAIR_ROWS), block) for start in starts]
            yield torch.cat(blocks).T.float().cpu().numpy()
        return
    represent = {modality: Representation(method, task, modality) for modality in (asking, answering)}
    columns = torch.cat([represent[answering](block) for block in gallery[answering].split(ROWS)]).T
    for block in queries[asking].split(ROWS):
        yield (represent[asking](block) @ columns).float().cpu().numpy()


@torch.no_grad()
def accuracy(method: Method, task: Task, queries: Unlabelled, label: np.ndarray) -> float:
    """Top-1 accuracy of the image queries against the candidate classes (``label [Q]`` are class indices).

    A posterior names its largest class; other methods compare with the class prompts as they do with texts. NaN
    where a method needs prompts and the task has none. Ties go to the first candidate.
    """
    if method.scoring != "posterior" and not task.class_text.shape[1]:
        return float("nan")
    named: list[Tensor] = []
    for start in range(0, len(queries.image), PAIR_ROWS):
        rows = slice(start, start + PAIR_ROWS)
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
            self.spread = spread(self._logits(known))

    def __call__(self, x: Tensor) -> Tensor:
        if self.spread is not None:
            return posteriors(self._logits(x), self.spread)
        embedded = cast(EmbeddingMethod, self.method).embed(x, self.modality)
        return normalize(_checked(self.method, embedded, len(x)).float(), dim=1)

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
