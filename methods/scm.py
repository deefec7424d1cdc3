"""Semantic correlation matching: semantic matching in the space of CCA."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from xshot_bench.methods._logistic import coefficients, train
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PosteriorMethod, Task
from xshot_bench.methods.cca import Cca


class Scm(PosteriorMethod):
    """Semantic correlation matching (Rasiwasia et al., ACM MM 2010): class posteriors from CCA's coordinates.

    CCA is learnt from all labelled pairs; on its coordinates a multinomial logistic regression for each modality from
    the labelled items of the candidate classes. Declines X = 0, where target classes have none.

    dimensions, regularisation: of the CCA (see ``cca``). strength: scikit-learn's C.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    dimensions: int = 512
    regularisation: float = 100.0
    strength: float = 0.3
    needs: ClassVar = frozenset()
    search: ClassVar = {"dimensions": (128, 512), "regularisation": (30.0, 100.0, 300.0), "strength": (0.1, 0.3, 1.0)}

    def fit(self, task: Task) -> None:
        if not task.shots or len(task.candidates) < 2:
            raise Declined("needs labelled items of at least two candidate classes")
        self.space = Cca(dimensions=self.dimensions, regularisation=self.regularisation, power=0.0)
        self.space.fit(task)
        labelled = task.labelled.of(task.candidates)
        self.weight: dict[Modality, Tensor] = {}
        self.bias: dict[Modality, Tensor] = {}
        for m in MODALITIES:
            coordinates = self.space.embed(labelled[m], m).cpu().double().numpy()
            model = train(coordinates, labelled.label.cpu().numpy(), self.strength)
            self.weight[m], self.bias[m] = coefficients(model, task.candidates, labelled[m])

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return self.space.embed(x, modality) @ self.weight[modality].T + self.bias[modality]
