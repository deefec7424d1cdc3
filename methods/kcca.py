"""Kernel CCA: canonical correlations of what a kernel sees."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, eigh
from sklearn.metrics.pairwise import additive_chi2_kernel, cosine_similarity, euclidean_distances
from torch import Tensor

from xshot_bench.methods._linear import Standard
from xshot_bench.methods.base import MODALITIES, Declined, EmbeddingMethod, Modality, Task

MOST = 3000  # pairs; the cost grows with their cube


class Kcca(EmbeddingMethod):
    """Kernel CCA (Hardoon et al., Neural Computation 2004) of the labelled pairs; their labels are unused.

        (K_x + κI)⁻¹ K_x · K_y (K_y + κI)⁻¹ = U S Vᵀ;  a = (K_x + κI)⁻¹ U Sᵖ,  b = (K_y + κI)⁻¹ V Sᵖ

    K ``[n,n]`` are centred Gram matrices; an item's embedding is its centred kernel with the n pairs, times a or b.
    Of more than ``MOST`` pairs, so many are drawn.

    kernel: ``rbf`` exp(−‖x−y‖² / m) of standardised features, ``chi2`` exp(−Σ (x−y)²/(x+y) / m) of histograms, each
        with m the mean distance over the pairs; or ``cosine``.
    kappa: κ. dimensions, power: columns kept, and p, as in ``cca``.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    kernel: Literal["rbf", "chi2", "cosine"] = "rbf"
    kappa: float = 0.3
    dimensions: int = 64
    power: float = 4.0
    needs: ClassVar = frozenset()
    search: ClassVar = {"kappa": (0.1, 0.3, 1.0), "power": (1.0, 2.0, 4.0, 8.0)}

    def fit(self, task: Task) -> None:
        labelled = task.labelled
        if len(labelled) > MOST:
            drawn = torch.randperm(len(labelled), generator=task.generator("kcca: pairs"))[:MOST]
            labelled = labelled.rows(drawn.to(task.device))
        if len(labelled) < 2:
            raise Declined("needs at least two labelled pairs to learn from")
        if self.kernel == "chi2" and min(float(labelled[m].min()) for m in MODALITIES) < 0:
            raise Declined("the chi2 kernel is one of histograms; these features have negative values")
        self.standard = {m: Standard.of(labelled[m]) for m in MODALITIES}
        self.items = {m: self._prepared(labelled[m], m) for m in MODALITIES}
        distances = {m: self._distances(self.items[m], m) for m in MODALITIES}
        self.mean_distance = {m: max(float(found.mean()), 1e-12) for m, found in distances.items()}
        grams = {m: self._kernel(found, m) for m, found in distances.items()}
        self.mean_kernel = {m: torch.from_numpy(gram.mean(0)).to(labelled[m]) for m, gram in grams.items()}
        image, text = (gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean() for gram in grams.values())
        found = _solve(image, text, self.kappa, min(self.dimensions, len(labelled)), self.power)
        self.map = {m: torch.from_numpy(a - a.mean(0)).to(labelled[m]) for m, a in zip(MODALITIES, found, strict=True)}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        distances = self._distances(self._prepared(x, modality), modality)
        kernel = torch.from_numpy(self._kernel(distances, modality)).to(x)
        return (kernel - self.mean_kernel[modality]) @ self.map[modality]

    def _prepared(self, x: Tensor, modality: Modality) -> Tensor:
        return self.standard[modality](x) if self.kernel == "rbf" else x

    def _distances(self, x: Tensor, modality: Modality) -> np.ndarray:
        """Between ``x [m,d]`` and the n labelled items, ``[m,n]`` (float64)."""
        rows, items = x.cpu().double().numpy(), self.items[modality].cpu().double().numpy()
        if self.kernel == "chi2":
            return -additive_chi2_kernel(rows, items)
        if self.kernel == "rbf":
            return euclidean_distances(rows, items, squared=True)
        return -cosine_similarity(rows, items)

    def _kernel(self, distances: np.ndarray, modality: Modality) -> np.ndarray:
        return -distances if self.kernel == "cosine" else np.exp(-distances / self.mean_distance[modality])


def _solve(image: np.ndarray, text: np.ndarray, kappa: float, kept: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """The maps a ``[n,kept]`` and b ``[n,kept]`` from the centred Gram matrices ``[n,n]``."""
    size, identity = len(image), np.eye(len(image))
    factors = [cho_factor(gram + kappa * identity) for gram in (image, text)]
    product = cho_solve(factors[0], image) @ cho_solve(factors[1], text)
    squared, left = (found[..., ::-1] for found in eigh(product @ product.T, subset_by_index=(size - kept, size - 1)))
    values = np.sqrt(np.maximum(squared, 0))
    right = product.T @ left / np.maximum(values, 1e-12)
    weight = values**power
    return cho_solve(factors[0], left * weight), cho_solve(factors[1], right * weight)
