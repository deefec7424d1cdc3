"""The simple baseline that is hard to beat: class-name text plus the mean of the shots."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.methods.base import MODALITIES, Modality, Pairs, PosteriorMethod, Task


class Prototype(PosteriorMethod):
    """One prototype a class, for both modalities: the class-name text plus the mean of the class's labelled items.

    With x = norm(f − centring·μ), where μ is the mean of the source classes' means in f's modality (for class texts,
    the mean of the source classes' texts). Without a source, the shots stand for it; without these, μ is 0:

        prototype(c) = norm(a(c) + shot_weight·norm(Σₘ norm(mean of the x of class c in modality m)))
        logits(x) = x · prototypes

    After Prototypical Networks (Snell et al., NeurIPS 2017) with the class text as one more item. A class without
    labelled items (X = 0) has its text alone.

    shots_of: the modality m of the items in the mean, seen from the item that is classified: its ``own``,
        the ``other``, or ``both``.

    The defaults were chosen on validation classes (docs/hyperparameters.md). There ``own`` was worse at one shot, and
    ``other`` always.
    """

    shot_weight: float = 1.0
    centring: float = 1.0
    shots_of: Literal["own", "other", "both"] = "both"
    ablations: ClassVar = {"noshots": {"shot_weight": 0.0}, "uncentred": {"centring": 0.0}}
    search: ClassVar = {"shot_weight": (0.5, 1.0, 1.5, 2.0, 3.0, 5.0), "centring": (0.5, 1.0)}

    def fit(self, task: Task) -> None:
        known, classes = task.source, task.source_classes
        if not len(known):
            known, classes = task.support, task.target_classes
        share = self.centring / len(classes) if len(known) else 0.0
        self.centre = {m: share * known.means(m, classes).sum(0) for m in MODALITIES}
        names = normalize(task.class_text - share * task.class_text[classes].sum(0), dim=1)[task.candidates]
        labelled = (task.source + task.support).of(task.candidates)
        image, text = (self._centred(labelled[m], m) for m in MODALITIES)
        centred = Pairs(image, text, labelled.label)
        means = {m: normalize(centred.means(m, task.candidates), dim=1) for m in MODALITIES}
        self.prototypes: dict[Modality, Tensor] = {}
        for own, other in (MODALITIES, MODALITIES[::-1]):
            chosen = {"own": means[own], "other": means[other], "both": means[own] + means[other]}[self.shots_of]
            self.prototypes[own] = normalize(names + self.shot_weight * normalize(chosen, dim=1), dim=1)

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return self._centred(x, modality) @ self.prototypes[modality].T

    def _centred(self, x: Tensor, modality: Modality) -> Tensor:
        return normalize(x - self.centre[modality], dim=1)
