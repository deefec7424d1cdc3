"""Partial least squares: directions of largest covariance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xshot_bench.methods._linear import LinearMethod


class Pls(LinearMethod):
    """PLS-SVD (Wegelin 2000; used for retrieval by Sharma & Jacobs, CVPR 2011): C_xy = U S Vᵀ, maps U and V.

    C_xy is the cross-covariance of the standardised labelled pairs; labels are unused, and X = 0 works. The first
    ``dimensions`` columns are kept, scaled by Sᵖ: p = ``power``, 0 in the papers.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    dimensions: int = 512
    power: float = 0.1
    search: ClassVar = {"dimensions": (32, 128, 512), "power": (0.0, 0.1, 0.25, 0.4)}

    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left, covariance, right = np.linalg.svd(image.T @ text / len(image), full_matrices=False)
        kept = min(self.dimensions, len(covariance))
        weight = (covariance[:kept] / max(covariance[0], 1e-12)) ** self.power
        return left[:, :kept] * weight, right[:kept].T * weight
