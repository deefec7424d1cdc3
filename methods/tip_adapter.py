"""Tip-Adapter: a cache of the shots beside the class texts, without training."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.methods.base import MODALITIES, Modality, PosteriorMethod, Task


class TipAdapter(PosteriorMethod):
    """Training-free cache of the shots (Zhang et al., ECCV 2022), one for each modality.

        logits(x) = s x·Tᵀ + α exp(−β (1 − x·Sᵀ)) Y

    x ``[n,d]``; T ``[C,d]`` class texts; S ``[k,d]`` and Y ``[k,C]`` the labelled items of the candidate classes and
    their one-hot classes; s the logit scale. α = 0 is ``sm``: so is X = 0, where some classes have nothing to cache.

    Where classes have unequal numbers of items (source and target in the generalised gallery), an item of Y counts
    X / (its class's number), else the larger classes would win by their number; with X items each that is the paper's.

    The paper has images alone: an image's key is the mean of its augmented views, where the features have such. The
    cache of texts for texts is ours, for retrieval asks for posteriors of both.

    cache_of: the modality of the cached items, seen from the item that is classified: its ``own``, or ``both``.

    The defaults were chosen on validation classes (docs/hyperparameters.md); the paper starts from α = 1, β = 5.5.
    """

    alpha: float = 10.0
    beta: float = 1.0
    cache_of: Literal["own", "both"] = "own"
    ablations: ClassVar = {"nocache": {"alpha": 0.0}, "both": {"cache_of": "both"}}
    search: ClassVar = {"alpha": (3.0, 10.0, 30.0), "beta": (0.3, 1.0, 3.0, 5.5)}

    def fit(self, task: Task) -> None:
        labelled = task.labelled.of(task.candidates if task.shots else task.candidates[:0])
        self.texts = task.scale * task.class_text[task.candidates]
        one_hot = (labelled.label[:, None] == task.candidates).to(self.texts.dtype)
        one_hot *= task.shots / one_hot.sum(0).clamp_min(1)
        image = labelled.image if labelled.views is None else normalize(labelled.views.mean(1), dim=1)
        keys = {"image": image, "text": labelled.text}
        self.keys: dict[Modality, Tensor] = {m: keys[m] for m in MODALITIES}
        self.values = one_hot
        if self.cache_of == "both":
            self.keys = dict.fromkeys(MODALITIES, torch.cat([image, labelled.text]))
            self.values = one_hot.repeat(2, 1)

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        affinity = torch.exp(-self.beta * (1 - x @ self.keys[modality].T))
        return x @ self.texts.T + self.alpha * affinity @ self.values
