"""DSCMR: labels regressed from a common space, pairwise likelihood, and pairs drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from xshot_bench.methods._deep import Batch, DeepMethod, Learnt, Network, Terms, learnt_of
from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import unit
from xshot_bench.methods.base import MODALITIES, Task


class Dscmr(DeepMethod):
    """Deep supervised cross-modal retrieval (Zhen et al., CVPR 2019).

        u = L relu(W_I x), v = L relu(W_T y), L shared;  class scores uP and vP, P shared

        ‖uP − y‖ + ‖vP − y‖ + α Σ_ab [log(1 + e^θ) − S θ] + β ‖u − v‖,  θ = ½ cos(a_i, b_j),  ab ∈ {uv, uu, vv}

    S_ij = 1 where items i and j are of one class; all terms are means over items or pairs of items, and norms are not
    squared, as in the released code. Published are α = 1e-3, β = .1, layers of 2048 and 1024, Adam at 1e-4, batches of
    100, 500 epochs and the best epoch on test items. Ours are smaller layers, standardised features, balanced batches
    and fixed steps. Items are compared by the cosine of u and v, as published, or by the class scores.

    hidden, common: widths of the layers. regression, likelihood, invariance: weights of the terms (1, α, β).
    """

    hidden: int = 256
    common: int = 256
    regression: float = 1.0
    likelihood: float = 1e-3
    invariance: float = 0.1
    rate: float = 1e-3

    ablations: ClassVar = {
        "noregression": {"regression": 0.0},
        "nolikelihood": {"likelihood": 0.0},
        "noinvariance": {"invariance": 0.0},
        "posterior": {"score_by": "posterior"},
    }
    components: ClassVar = ("noregression", "nolikelihood", "noinvariance")
    search: ClassVar = {
        "steps": (100, 200, 300),
        "rate": (1e-4, 3e-4, 1e-3),
        "likelihood": (1e-3, 1e-1, 1.0),
        "invariance": (0.01, 0.1, 1.0),
    }

    def learn(self, data: Batch, tasks: Sequence[Task]) -> Sequence[Learnt]:
        draws = Draws(tasks, "dscmr")
        network = {m: Network(draws, [data[m].shape[2], self.hidden, self.common]) for m in MODALITIES}
        network["text"].layers[1] = network["image"].layers[1]
        classifier = Network(draws, [self.common, data.class_text.shape[1]])

        def terms(part: Batch, share: float) -> Terms:
            u, v = (network[m](part[m]) for m in MODALITIES)
            return {
                "regression": regression(classifier(u), part.onehot) + regression(classifier(v), part.onehot),
                "likelihood": likelihood(u, v, part.same) + likelihood(u, u, part.same) + likelihood(v, v, part.same),
                "invariance": (u - v).norm(dim=2).mean(1),
            }

        learnt = [*network["image"].parameters, *network["text"].layers[0], *classifier.parameters]
        return learnt_of(network, classifier, self.descend(data, draws, learnt, terms))


def regression(scores: Tensor, onehot: Tensor) -> Tensor:
    """The mean distance of class scores ``[E,n,C]`` from the one-hot classes, ``[E]``."""
    return (scores - onehot).norm(dim=2).mean(1)


def likelihood(a: Tensor, b: Tensor, same: Tensor) -> Tensor:
    """The mean negative log-likelihood of ``same [E,n,n]`` under half the cosines of ``a [E,n,e]`` and b, ``[E]``."""
    theta = unit(a) @ unit(b).mT / 2
    return (softplus(theta) - same * theta).mean((1, 2))
