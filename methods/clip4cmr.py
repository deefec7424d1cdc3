"""CLIP4CMR: two small networks on frozen features, under one of several losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from xshot_bench.methods._deep import Batch, DeepMethod, Learnt, Network, Terms, entropy, learnt_of, total
from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import unit
from xshot_bench.methods.base import MODALITIES, Modality, Task
from xshot_bench.methods.dscmr import regression


class Clip4Cmr(DeepMethod):
    """CLIP4CMR (Zeng et al., arXiv 2201.02772): u = unit(W₂ gelu(W₁ x)) for each modality, with dropout on W₂'s output.

    The paper compares losses on these networks; ``objective`` picks one, all of them between images and texts:

        supcon       supervised contrastive (Khosla et al., NeurIPS 2020) over the images and texts of a batch together:
                     −mean over i and its positives p of log [e^(z_i·z_p / τ) / Σ_{a≠i} e^(z_i·z_a / τ)]
        contrastive  Σ_j S‖u_i − v_j‖² + (1 − S) max(0, margin − ‖u_i − v_j‖²), S = 1 where i and j are of one class
        triplet      max(0, ‖u_i − v_p‖² − ‖u_i − v_n‖² + margin), summed over n, meant over (i, p); both directions
        regression   ‖uP − y‖ + ‖vP − y‖, the distance of class scores from the one-hot class
        entropy      the cross-entropy of class logits uP and vP
        prototype    the cross-entropy of −‖u − c_k‖² and −‖v − c_k‖², to fixed random unit vectors c_k of the classes

    contrastive, triplet, regression, entropy and prototype are those of the released code, with its margin of .2; its
    supervised contrastive loss is an approximation, ours is Khosla's. Published are hidden layers of 256, a space of
    1024, dropout .1, Adam at 1e-4 with β₁ = .5, batches of 300, up to 500 epochs stopped early on test items. Ours are
    the smaller space, standardised features, balanced batches and fixed steps.

    Items are compared by cosine, as published; the switch ``posterior`` compares cosines with the class means of the
    labelled items in the common space. temperature: τ.
    """

    steps: int = 100
    hidden: int = 256
    common: int = 256
    dropout: float = 0.1
    objective: Literal["supcon", "contrastive", "triplet", "regression", "entropy", "prototype"] = "supcon"
    temperature: float = 0.3
    margin: float = 0.2
    rate: float = 3e-4

    ablations: ClassVar = {
        "nodropout": {"dropout": 0.0},
        "contrastive": {"objective": "contrastive"},
        "triplet": {"objective": "triplet"},
        "regression": {"objective": "regression"},
        "entropy": {"objective": "entropy"},
        "prototype": {"objective": "prototype"},
        "posterior": {"score_by": "posterior"},
    }
    search: ClassVar = {
        "steps": (100, 200, 300),
        "rate": (1e-4, 3e-4, 1e-3),
        "temperature": (0.05, 0.1, 0.3),
        "dropout": (0.1, 0.5),
    }

    def learn(self, data: Batch, tasks: Sequence[Task]) -> Sequence[Learnt]:
        draws = Draws(tasks, "clip4cmr")
        network = {m: Network(draws, [data[m].shape[2], self.hidden, self.common], "gelu") for m in MODALITIES}
        classifier = Network(draws, [self.common, data.class_text.shape[1]])
        centre = unit(draws.normal(data.class_text.shape[1], self.common))

        def terms(part: Batch, share: float) -> Terms:
            u, v = (unit(draws.dropout(network[m](part[m]), self.dropout)) for m in MODALITIES)
            return {self.objective: self._loss(u, v, part, classifier, centre)}

        learnt = [p for one in (*network.values(), classifier) for p in one.parameters]
        watched = self.descend(data, draws, learnt, terms)
        with torch.no_grad():
            sums = total(data.onehot.mT @ unit(network[m](data[m])) for m in MODALITIES)
        return learnt_of(network, Network.of_rows(unit(sums)), watched)

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return unit(super().embed(x, modality))

    def _loss(self, u: Tensor, v: Tensor, part: Batch, classifier: Network, centre: Tensor) -> Tensor:
        """Of unit embeddings ``[E,n,e]`` of a batch, ``[E]``."""
        if self.objective == "supcon":
            return supervised_contrastive(torch.cat([u, v], 1), part.label.repeat(1, 2), self.temperature)
        if self.objective == "contrastive":
            return contrastive(u, v, part.same, self.margin)
        if self.objective == "triplet":
            return triplet(u, v, part.same, self.margin) + triplet(v, u, part.same, self.margin)
        if self.objective == "regression":
            return regression(classifier(u), part.onehot) + regression(classifier(v), part.onehot)
        if self.objective == "entropy":
            return entropy(classifier(u), part.label) + entropy(classifier(v), part.label)
        return entropy(-squared_distance(u, centre), part.label) + entropy(-squared_distance(v, centre), part.label)


def supervised_contrastive(z: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Of unit ``z [E,n,e]`` of classes ``label [E,n]``, ``[E]``; items without a positive do not count."""
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    positive = (label[:, :, None] == label[:, None]) & ~itself
    similarity = (z @ z.mT / temperature).masked_fill(itself, -torch.inf)
    log_share = (similarity - similarity.logsumexp(2, keepdim=True)).masked_fill(itself, 0.0)
    each = -(log_share * positive).sum(2) / positive.sum(2).clamp_min(1)
    return each.sum(1) / positive.any(2).sum(1).clamp_min(1)


def contrastive(u: Tensor, v: Tensor, same: Tensor, margin: float) -> Tensor:
    distance = squared_distance(u, v)
    return torch.where(same, distance, (margin - distance).relu()).sum(2).mean(1)


def triplet(u: Tensor, v: Tensor, same: Tensor, margin: float) -> Tensor:
    """Over anchors in u, positives and negatives in v: summed over negatives, meant over pairs of one class."""
    distance = squared_distance(u, v)
    hinge = (distance[:, :, :, None] - distance[:, :, None] + margin).relu()
    counted = same[:, :, :, None] & ~same[:, :, None]
    return (hinge * counted).sum((1, 2, 3)) / same.sum((1, 2))


def squared_distance(u: Tensor, v: Tensor) -> Tensor:
    """Of unit ``u [E,n,e]`` and ``v [E,m,e]``, ``[E,n,m]``."""
    return 2 - 2 * u @ v.mT
