"""Class-posterior matching with a logistic regression on the labelled items."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from xshot_bench.methods.base import MODALITIES, Declined, Modality, Pairs, PosteriorMethod, Task

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # scikit-learn's C, to choose from
REHEARSALS = 3


class LinearProbe(PosteriorMethod):
    """Multinomial logistic regression on the shots; items match by class posterior (semantic matching).

    Semantic matching of Rasiwasia et al. (ACM MM 2010): one classifier a modality, compared by their posteriors.
    Training items are the labelled items of the candidate classes: the shots, and in the generalised gallery the
    source items too. C is the one of ``STRENGTHS`` that classifies best on validation classes (rehearsals with the
    same X). Declines X = 0, where the target classes have no item to train on.

    train_on: the modality of a classifier's training items: its ``own``, or ``both``.
    """

    train_on: Literal["own", "both"] = "both"
    ablations: ClassVar = {"own": {"train_on": "own"}}

    def fit(self, task: Task) -> None:
        if not task.shots:
            raise Declined("a linear probe needs labelled items of the target classes: at least one shot")
        if len(task.candidates) < 2:
            raise Declined("a linear probe needs at least two candidate classes")
        rehearsals = [task.rehearsal(draw) for draw in range(REHEARSALS)]
        self.strength = {m: self._choose_strength(rehearsals, m) for m in MODALITIES}
        labelled = (task.source + task.support).of(task.candidates)
        self.weight: dict[Modality, Tensor] = {}
        self.bias: dict[Modality, Tensor] = {}
        for modality in MODALITIES:
            model = self._train(labelled, modality, self.strength[modality])
            weight, bias = model.coef_, model.intercept_
            if len(bias) == 1:  # scikit-learn keeps one row of the two
                weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
            column = np.searchsorted(model.classes_, task.candidates.cpu().numpy())
            self.weight[modality] = torch.from_numpy(weight[column]).float().to(task.device)
            self.bias[modality] = torch.from_numpy(bias[column]).float().to(task.device)

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.weight[modality].T + self.bias[modality]

    def diagnostics(self) -> dict[str, float]:
        return {f"C {modality}": strength for modality, strength in self.strength.items()}

    def _choose_strength(self, rehearsals: Sequence[tuple[Task, Pairs]], modality: Modality) -> float:
        """The C with the best mean accuracy on the held-out items; the smallest of equals."""
        accuracy = np.zeros(len(STRENGTHS))
        for task, held_out in rehearsals:
            if len(task.support.label.unique()) > 1 and len(held_out):
                x, label = held_out[modality].cpu().numpy(), held_out.label.cpu().numpy()
                accuracy += [self._train(task.support, modality, C).score(x, label) for C in STRENGTHS]
        return STRENGTHS[int(accuracy.argmax())]

    def _train(self, pairs: Pairs, modality: Modality, strength: float) -> LogisticRegression:
        from sklearn.linear_model import LogisticRegression

        chosen = [modality] if self.train_on == "own" else MODALITIES
        x = torch.cat([pairs[m] for m in chosen]).cpu().numpy()
        label = pairs.label.repeat(len(chosen)).cpu().numpy()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes")  # one shot a class is what was asked for
            return LogisticRegression(C=strength, max_iter=1000).fit(x, label)
