"""Joint representation learning: label regression, pairwise agreement, a neighbour graph and sparsity at once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.neighbors import kneighbors_graph

from xshot_bench.methods._linear import LinearMethod, one_hot

ROUNDS = 5  # the paper's


class Jrl(LinearMethod):
    """Joint representation learning (Zhai et al., IEEE TCSVT 2014), without its test items and its final kernel.

    Minimises over the maps P (image) and Q (text), for standardised items X, Z and their one-hot classes Y:

        ‖XP − Y‖² + ‖ZQ − Y‖² + λ ‖XP − ZQ‖² + σ tr(Pᵀ XᵀL_X X P + Qᵀ ZᵀL_Z Z Q) + γ (‖P‖₂₁ + ‖Q‖₂₁)

    in turn: P = (γ D + σ XᵀL_X X + (λ + 1) XᵀX)⁻¹ (λ XᵀZ Q + XᵀY), D = diag(1 / 2‖row of P‖), and likewise Q. L is the
    normalised Laplacian of the graph of ``neighbours`` nearest items. The paper puts test items in the graph, which is
    transductive, and compares by a kernel of nearest labels; ours has labelled items only and the cosine of XP and ZQ.

    agreement: λ. smoothness: σ. sparsity: γ. The paper has λ = 1, σ = γ = 1000 and 100 neighbours.

    The defaults were chosen on validation classes (docs/hyperparameters.md).
    """

    agreement: float = 10.0
    smoothness: float = 3.0
    sparsity: float = 30.0
    neighbours: int = 100
    search: ClassVar = {
        "agreement": (3.0, 10.0, 30.0, 100.0),
        "smoothness": (1.0, 3.0, 10.0),
        "sparsity": (10.0, 30.0, 100.0),
    }

    def maps(self, image: np.ndarray, text: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views, classes = (image, text), one_hot(label)
        fixed = [self.smoothness * _smoothness(x, self.neighbours) + (self.agreement + 1) * x.T @ x for x in views]
        maps = [np.zeros((x.shape[1], classes.shape[1])) for x in views]
        sparse = [np.ones(x.shape[1]) for x in views]
        for _ in range(ROUNDS):
            for own, other in ((0, 1), (1, 0)):
                x, agreed = views[own], views[other] @ maps[other]
                wanted = x.T @ (self.agreement * agreed + classes)
                maps[own] = np.linalg.solve(fixed[own] + self.sparsity * np.diag(sparse[own]), wanted)
                sparse[own] = 0.5 / (np.linalg.norm(maps[own], axis=1) + 1e-9)
        return maps[0], maps[1]


def _smoothness(x: np.ndarray, neighbours: int) -> np.ndarray:
    """``XᵀLX``, with L = I − W^-½ A W^-½ of the graph A that joins each item with its nearest ones."""
    graph = kneighbors_graph(x, min(neighbours, len(x) - 1))
    joined = graph.maximum(graph.T)
    scaled = x / np.sqrt(np.asarray(joined.sum(1)))
    return x.T @ x - scaled.T @ (joined @ scaled)
