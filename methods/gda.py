"""Gaussian discriminant analysis of the shots, beside the class texts."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods.base import MODALITIES, Declined, Modality, PosteriorMethod, Task


class Gda(PosteriorMethod):
    """Gaussians with one covariance for all classes (Wang et al., ICLR 2024), for each modality by itself.

        logits(x) = s x·Tᵀ + α (x Wᵀ + b),  W = Σ⁻¹ μ,  b = −½ μᵀ Σ⁻¹ μ,  Σ⁻¹ = d ((M − 1) Σ̂ + tr(Σ̂) I)⁺

    T ``[C,d]`` class texts, s the logit scale, μ ``[C,d]`` the candidate classes' means, Σ̂ the covariance of the M
    labelled items about their class means. α = 0, and X = 0, is ``sm``. Where there are no class texts in the items'
    space (feature files), the Gaussians stand alone.

    The paper has images alone and a support set; ours are the texts' Gaussians, and that source items are among the M
    items. Where no class has two items, Σ̂ is taken about the mean of all.

    with_text: whether the class texts take part.

    The defaults were chosen on validation classes (docs/hyperparameters.md); the paper chooses α on validation
    items of each dataset.
    """

    alpha: float = 0.1
    with_text: bool = True
    needs: ClassVar = frozenset()
    ablations: ClassVar = {"notext": {"with_text": False}, "nogda": {"alpha": 0.0}}
    search: ClassVar = {"alpha": (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)}

    def fit(self, task: Task) -> None:
        prompted = self.with_text and task.joint and task.class_text.shape[1] > 0
        if not task.shots and not prompted:
            raise Declined("without class prompts it needs labelled items of the candidate classes")
        self.weight: dict[Modality, Tensor] = {}
        self.bias: dict[Modality, Tensor] = {}
        for m in MODALITIES:
            weight, bias = self._gaussians(task, m)
            if prompted:
                weight = weight + task.scale * task.class_text[task.candidates]
            self.weight[m], self.bias[m] = weight, bias

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.weight[modality].T + self.bias[modality]

    def _gaussians(self, task: Task, modality: Modality) -> tuple[Tensor, Tensor]:
        """α W ``[C,d]`` and α b ``[C]``; zeros at X = 0, where target classes have no mean."""
        labelled, like = task.labelled, task.class_text
        size, width = labelled[modality].shape
        if not task.shots:
            return like.new_zeros(len(task.candidates), width), like.new_zeros(len(task.candidates))
        classes, member = labelled.label.unique(return_inverse=True)
        centred = labelled[modality] - labelled.means(modality, classes)[member]
        if size == len(classes):
            centred = labelled[modality] - labelled[modality].mean(0)
        centred = centred.cpu().double()
        scatter = centred.T @ centred
        shrinkage = scatter.trace() / max(size - 1, 1) * torch.eye(width, dtype=torch.float64)
        means = labelled.means(modality, task.candidates).cpu().double()
        weight = width * means @ torch.linalg.pinv(scatter + shrinkage, hermitian=True)
        bias = -0.5 * (weight * means).sum(1)
        return self.alpha * weight.to(like), self.alpha * bias.to(like)
