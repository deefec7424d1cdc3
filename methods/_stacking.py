"""What methods share that train the networks of several draws at once, side by side.

Parameters are ``[E, ...]``, batches ``[E, B, ...]``. No operation mixes two draws, so nothing is shared between them.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from xshot_bench.methods.base import EmbeddingMethod, Method, PosteriorMethod, Scoring, Task


class StackedMethod(Method):
    """Trains several draws together; ``fit`` is the case of one."""

    stack: ClassVar = True

    @abstractmethod
    def train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        """Train on all tasks at once; ``fitted[e]``, a copy of this method, becomes that of ``tasks[e]``."""

    def fit(self, task: Task) -> None:
        self.train([self], [task])

    def fit_many(self, tasks: Sequence[Task]) -> list[Self]:
        fitted = [copy.copy(self) for _ in tasks]
        self.train(fitted, tasks)
        return fitted


class StackedEmbeddingMethod(StackedMethod, EmbeddingMethod, PosteriorMethod):
    """One that also classifies items in its space.

    score_by: embeddings are compared by ``cosine``, or items by their class ``posterior``.
    """

    score_by: Literal["cosine", "posterior"] = "cosine"

    @property
    def scoring(self) -> Scoring:
        return self.score_by


class Draws:
    """The random numbers of E draws, each from its own generator, so that a draw's do not depend on its company."""

    def __init__(self, tasks: Sequence[Task], purpose: str) -> None:
        self.generators = [task.generator(purpose) for task in tasks]
        self.like = tasks[0].class_text  # device and dtype

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers ``[E, *shape]``."""
        return self._each(lambda g: torch.randn(shape, generator=g)).to(self.like)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), ``[E, *shape]``."""
        return self._each(lambda g: torch.rand(shape, generator=g)).to(self.like)

    def below(self, limit: int, count: int) -> Tensor:
        """Whole numbers below ``limit``, ``[E, count]``."""
        return self._each(lambda g: torch.randint(limit, (count,), generator=g)).to(self.like.device)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """``x [E, ...]`` with a part of its numbers set to 0 and the others scaled up."""
        return x * (self.uniform(*x.shape[1:]) >= rate) / (1 - rate) if rate else x

    def _each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators])
