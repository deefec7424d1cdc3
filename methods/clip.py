"""Zero-shot retrieval: the encoder's own features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods.base import MODALITIES, EmbeddingMethod, Modality, Task


class Clip(EmbeddingMethod):
    """Zero-shot cosine of the frozen encoder's features (Radford et al., ICML 2021); nothing is learnt.

    centred: take from each modality its mean first, which closes the modality gap: the mean of the source classes'
        means, of the shots' where there is no source.
    """

    centred: bool = False
    needs: ClassVar = frozenset({"joint"})
    ablations: ClassVar = {"centred": {"centred": True}}

    def fit(self, task: Task) -> None:
        self.centre = {m: torch.zeros_like(task.source[m][:1].sum(0)) for m in MODALITIES}
        known = task.source if len(task.source) else task.support
        if self.centred and len(known):
            self.centre = {m: known.means(m, known.label.unique()).mean(0) for m in MODALITIES}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x - self.centre[modality]
