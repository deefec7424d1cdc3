"""Three-view CCA: images, texts and their classes in one space."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.linalg import block_diag, eigh

from xshot_bench.methods._linear import LinearMethod, one_hot, regularised


class Cca3(LinearMethod):
    """CCA of three views, image, text and one-hot class (Gong et al., IJCV 2014).

        S w = λ D w,  S the covariance of the joined views, D its diagonal blocks, both with r I added view by view

    The eigenvectors of the ``dimensions`` largest λ, cut into views and scaled by λᵖ, are the maps; the paper has
    p = 4. r is ``regularisation`` times the mean eigenvalue of the view's block. Classes without items (the target
    classes at X = 0) have no coordinate in the third view.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    dimensions: int = 128
    regularisation: float = 1.0
    power: float = 4.0
    search: ClassVar = {"regularisation": (0.1, 0.3, 1.0, 3.0), "power": (2.0, 4.0, 8.0)}

    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = one_hot(label)
        views = [image, text, classes - classes.mean(0)]
        joined = np.hstack(views)
        size, width = joined.shape
        blocks = block_diag(*(regularised(view.T @ view / size, self.regularisation) for view in views))
        covariance = joined.T @ joined / size
        np.fill_diagonal(covariance, blocks.diagonal())
        kept = min(self.dimensions, width)
        values, vectors = eigh(covariance, blocks, subset_by_index=(width - kept, width - 1))
        maps = (vectors * np.maximum(values, 0) ** self.power)[:, ::-1]
        return maps[: image.shape[1]], maps[image.shape[1] :][: text.shape[1]]
