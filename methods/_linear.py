"""What the closed-form methods share: standardised items, and a linear map of each modality into one space."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from xshot_bench.methods.base import MODALITIES, Declined, EmbeddingMethod, Modality, Task


@dataclass(frozen=True)
class Standard:
    """x -> (x − mean) / deviation, ``[n,d] -> [n,d]``."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, x: Tensor, scale: bool = True) -> Standard:
        """By the mean of ``x [n,d]`` and, with ``scale``, its standard deviations; a constant feature becomes 0."""
        deviation = x.std(0, correction=0) if scale else torch.ones_like(x[0])
        constant = deviation <= 1e-6 * x.abs().amax(0).clamp_min(1e-6)
        return cls(x.mean(0), torch.where(constant, torch.ones_like(deviation), deviation))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class LinearMethod(EmbeddingMethod):
    """A method whose embedding is ``standard(x) @ map``, learnt from all labelled items; works on separate spaces too.

    standardise: scale features to unit variance over the labelled items, not only centre them.
    """

    standardise: bool = True
    needs: ClassVar = frozenset()

    @abstractmethod
    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The maps ``[d_i,e]`` and ``[d_t,e]`` from standardised pairs ``[n,d_i]``, ``[n,d_t]`` (float64)."""

    def fit(self, task: Task) -> None:
        labelled = task.labelled
        if len(labelled) < 2:
            raise Declined("needs at least two labelled pairs to learn from")
        self.standard = {m: Standard.of(labelled[m], self.standardise) for m in MODALITIES}
        image, text = (self.standard[m](labelled[m]).cpu().double().numpy() for m in MODALITIES)
        found = self.maps(image, text, labelled.label.cpu().numpy())
        self.map = {m: torch.from_numpy(a.copy()).to(labelled[m]) for m, a in zip(MODALITIES, found, strict=True)}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return self.standard[modality](x) @ self.map[modality]


def one_hot(label: np.ndarray) -> np.ndarray:
    """``[n]`` -> ``[n, classes that occur]``."""
    return (label[:, None] == np.unique(label)).astype(float)


def regularised(covariance: np.ndarray, fraction: float) -> np.ndarray:
    """``C + fraction · tr(C)/p · I`` for ``C [p,p]``: a fraction of the mean eigenvalue on the diagonal."""
    size = len(covariance)
    return covariance + (fraction * np.trace(covariance) / size + 1e-9) * np.eye(size)
