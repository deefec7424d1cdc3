"""Canonical correlation analysis: the classic common space."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xshot_bench.methods._linear import LinearMethod, regularised


class Cca(LinearMethod):
    """Correlation matching (Rasiwasia et al., ACM MM 2010): CCA of image-text pairs (Hotelling 1936), labels unused.

        (C_xx + r_x I)^-½ C_xy (C_yy + r_y I)^-½ = U S Vᵀ;  maps (C_xx + r_x I)^-½ U Sᵖ, (C_yy + r_y I)^-½ V Sᵖ

    C are covariances of the standardised labelled pairs; r is ``regularisation`` times the mean eigenvalue of C_xx or
    C_yy. The first ``dimensions`` columns are kept. It is learnt from source pairs and shots alike, so X = 0 works.

    power: p; the paper has 0. Columns weighted by their correlation count less where that is small.

    The defaults were chosen on validation classes (docs/hyperparameters.md), for features of CLIP's kind. The
    paper has 7 dimensions for the Wikipedia set's own features, which want regularisation of 0.01 to 0.1.
    """

    dimensions: int = 128
    regularisation: float = 3.0
    power: float = 2.0
    ablations: ClassVar = {"unweighted": {"power": 0.0}}
    search: ClassVar = {"regularisation": (0.3, 1.0, 3.0, 10.0), "power": (1.0, 2.0, 4.0)}

    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        to_image, to_text = (_inverse_root(regularised(x.T @ x / len(x), self.regularisation)) for x in (image, text))
        left, correlation, right = np.linalg.svd(to_image @ (image.T @ text / len(image)) @ to_text)
        kept = min(self.dimensions, len(correlation))
        weight = correlation[:kept] ** self.power
        return to_image @ left[:, :kept] * weight, to_text @ right[:kept].T * weight


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """``M^-½`` of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors / np.sqrt(values) @ vectors.T
