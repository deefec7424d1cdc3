"""Label ridge: each modality is regressed on its classes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xshot_bench.methods._linear import LinearMethod, one_hot


class Ridge(LinearMethod):
    """Linear regression to the labels, compared there: B = (XᵀX + λ I)⁻¹ XᵀY for each modality, embedding x B.

    X ``[n,d]`` are the standardised labelled items, Y their one-hot classes, source and target; λ is ``strength``. The
    intercept is left out, so the cosine is that of scores centred over the labelled items. A class without items (the
    target classes at X = 0) has no coordinate: its items are known by their likeness to the other classes.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    strength: float = 1000.0
    search: ClassVar = {"strength": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 1e5, 1e6)}

    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = one_hot(label)
        to_image, to_text = (_regression(x, classes, self.strength) for x in (image, text))
        return to_image, to_text


def _regression(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
