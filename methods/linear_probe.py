"""Class-posterior matching with a logistic regression on the labelled items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from xshot_bench.methods._logistic import coefficients, train
from xshot_bench.methods.base import MODALITIES, Declined, Modality, Pairs, PosteriorMethod, Task

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # scikit-learn's C, to choose from
REHEARSALS = 3


class LinearProbe(PosteriorMethod):
    """Multinomial logistic regression on the shots; items match by class posterior (semantic matching).

    Semantic matching of Rasiwasia et al. (ACM MM 2010), in the encoder's joint space: items of both modalities are
    classified and compared by their posteriors. Training items are the labelled items of the candidate classes: the
    shots, and in the generalised gallery the source items too. C is the one of ``STRENGTHS`` that classifies best on
    validation classes (rehearsals with the same X). Declines X = 0, where the target classes have nothing to train on.

    train_on: ``both`` trains one classifier on images and texts, ``own`` one on each modality's items.
    """

    train_on: Literal["own", "both"] = "both"
    needs: ClassVar = frozenset({"joint"})
    ablations: ClassVar = {"own": {"train_on": "own"}}
    search: ClassVar = {"train_on": ("own", "both")}

    def fit(self, task: Task) -> None:
        if not task.shots:
            raise Declined("a linear probe needs labelled items of the target classes: at least one shot")
        if len(task.candidates) < 2:
            raise Declined("a linear probe needs at least two candidate classes")
        rehearsals = task.rehearsals(REHEARSALS)
        labelled = (task.source + task.support).of(task.candidates)
        self.strength: dict[Modality, float] = {}
        self.weight: dict[Modality, Tensor] = {}
        self.bias: dict[Modality, Tensor] = {}
        for group in [MODALITIES] if self.train_on == "both" else [(m,) for m in MODALITIES]:
            strength = _choose_strength(rehearsals, group)
            model = train(*_rows(labelled, group), strength)
            weight, bias = coefficients(model, task.candidates, labelled.image)
            for modality in group:
                self.strength[modality], self.weight[modality], self.bias[modality] = strength, weight, bias

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.weight[modality].T + self.bias[modality]

    def diagnostics(self) -> dict[str, float]:
        return {f"C {modality}": strength for modality, strength in self.strength.items()}


def _choose_strength(rehearsals: Sequence[tuple[Task, Pairs]], group: Sequence[Modality]) -> float:
    """The C with the best mean accuracy on the held-out items of these modalities; the smallest of equals.

    Where there is nothing to choose on, it is the middle one.
    """
    accuracy = np.zeros(len(STRENGTHS))
    for task, held_out in rehearsals:
        if len(task.support.label.unique()) > 1 and len(held_out):
            x, label = _rows(held_out, group)
            accuracy += [train(*_rows(task.support, group), strength).score(x, label) for strength in STRENGTHS]
    return STRENGTHS[int(accuracy.argmax())] if accuracy.any() else STRENGTHS[len(STRENGTHS) // 2]


def _rows(pairs: Pairs, group: Sequence[Modality]) -> tuple[np.ndarray, np.ndarray]:
    """The items of these modalities under each other, and their labels."""
    return torch.cat([pairs[m] for m in group]).cpu().numpy(), pairs.label.repeat(len(group)).cpu().numpy()
