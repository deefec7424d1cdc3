"""Zero-shot retrieval: the encoder's own features."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from xshot_bench.methods.base import EmbeddingMethod, Modality, Task


class Clip(EmbeddingMethod):
    """Zero-shot cosine of the frozen encoder's features (Radford et al., ICML 2021); nothing is learnt."""

    needs: ClassVar = frozenset({"joint"})

    def fit(self, task: Task) -> None:
        """Nothing to learn."""

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x
