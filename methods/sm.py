"""Semantic matching: items of both modalities are compared by what classes they look like."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from xshot_bench.methods._linear import Standard
from xshot_bench.methods._logistic import coefficients, train
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PosteriorMethod, Task


class SemanticMatching(PosteriorMethod):
    """Semantic matching (Rasiwasia et al., ACM MM 2010): each item is its vector of class posteriors.

    classes_from: what the classes are known by.
        ``prompts``: the class prompts' text features t(c), zero-shot: logits(x) = s x·t(c), s the logit scale.
        ``labels``: the paper's own; multinomial logistic regression for each modality on its standardised features,
            learnt from the labelled items of the candidate classes. Works on separate spaces; declines X = 0.
    strength: scikit-learn's C of these regressions, chosen on validation classes (docs/hyperparameters.md).

    The paper compares posteriors by several distances; here it is the dot product, as for all posterior methods.
    """

    classes_from: Literal["prompts", "labels"] = "prompts"
    strength: float = 0.01
    needs: ClassVar = frozenset()
    ablations: ClassVar = {"labels": {"classes_from": "labels"}}
    search: ClassVar = {"strength": (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)}  # of :labels

    def fit(self, task: Task) -> None:
        if self.classes_from == "prompts":
            if not task.joint or not task.class_text.shape[1]:
                raise Declined("needs class prompts in the items' space; sm:labels learns classes from labelled items")
            self.weight = dict.fromkeys(MODALITIES, task.scale * task.class_text[task.candidates])
            return
        if not task.shots or len(task.candidates) < 2:
            raise Declined("needs labelled items of at least two candidate classes")
        labelled = task.labelled.of(task.candidates)
        self.weight, self.bias, self.standard = {}, {}, {}
        for m in MODALITIES:
            self.standard[m] = Standard.of(labelled[m])
            items = self.standard[m](labelled[m]).cpu().double().numpy()
            model = train(items, labelled.label.cpu().numpy(), self.strength)
            self.weight[m], self.bias[m] = coefficients(model, task.candidates, labelled[m])

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        if self.classes_from == "prompts":
            return x @ self.weight[modality].T
        return self.standard[modality](x) @ self.weight[modality].T + self.bias[modality]
