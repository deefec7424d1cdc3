"""DADN: dual adversarial networks between features and the embeddings of class names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from xshot_bench.methods._deep import Batch, DeepMethod, Learnt, Network, Terms, learnt_of, taken, total
from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import unit
from xshot_bench.methods.base import MODALITIES, Declined, Modality, Task

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # of the released code


class Dadn(DeepMethod):
    """Dual adversarial distribution network (Chi & Peng, TCSVT 2019), after its released code; the body is not with us.

    For each modality with features x, and a the embedding of the item's class (here the class text):

        c = G(x), x' = R(c);  critics D(c, x): is c the class's embedding or made?  E(x): is x real or regenerated?

        critic·[BCE of D(a, x) → 1, D(c, x) → 0, D(c_other, x) → 0, E(x) → 1, E(x') → 0]
        matching·[MMD(D(c, x), D(a, x)) + MMD(D(c_other, x), D(a, x)) + MMD(E(x'), E(x))]
        semantic·max(0, margin·½‖c − a‖² − ½‖c − c⁻_image‖² − ½‖c − c⁻_text‖²) + reconstruction·½‖x − x'‖²

    The first moves D and E, the others G and R. c_other is made from the other modality of the pair, c⁻ from an item of
    another class. MMD is the root of the squared maximum mean discrepancy of a critic's layers, its input too, with a
    sum of Gaussian kernels. Items are compared by the cosine of c, as published, or by c's cosines with the class
    embeddings (``posterior``), at X = 0 too.

    Published: word vectors for a; G and R with two hidden layers of 4096, dropout .1, critics 4096–2048; margin 20; the
    last two terms summed over batches of 64 (one hinge of the sums) beside MMD at weight 1; four Adam steps in turn at
    1e-4, 10 epochs; embeddings standardised over the test set before the cosine, which is transductive. Ours: one
    hidden layer, margin 5 (chosen on validation classes), means over items and a hinge for each (so MMD's published
    weight is 1/64 = .016), all networks moved at once, standardised features, and no look at the test set.
    """

    hidden: int = 128
    dropout: float = 0.1
    margin: float = 5.0
    critic: float = 1.0
    matching: float = 0.016
    semantic: float = 1.0
    reconstruction: float = 0.1
    steps: int = 300
    batch: int = 48
    rate: float = 3e-3

    needs: ClassVar = frozenset({"class_text"})
    ablations: ClassVar = {
        "nomatching": {"matching": 0.0},
        "nosemantic": {"semantic": 0.0},
        "noreconstruction": {"reconstruction": 0.0},
        "posterior": {"score_by": "posterior"},
    }
    components: ClassVar = ("nomatching", "nosemantic", "noreconstruction")
    search: ClassVar = {
        "steps": (75, 150, 300),
        "rate": (1e-3, 3e-3, 1e-2),
        "matching": (0.016, 0.2),
        "reconstruction": (0.001, 0.01, 0.1),
        "margin": (5.0, 20.0),
    }

    def check(self, task: Task) -> None:
        if not len(task.labelled):
            raise Declined("needs labelled items to learn from; there are none")

    def learn(self, data: Batch, tasks: Sequence[Task]) -> Sequence[Learnt]:
        draws = Draws(tasks, "dadn")
        code, width = data.class_text.shape[2], {m: data[m].shape[2] for m in MODALITIES}
        forward = {m: Network(draws, [width[m], self.hidden, code]) for m in MODALITIES}
        back = {m: Network(draws, [code, self.hidden, width[m]]) for m in MODALITIES}
        of_code = {m: Network(draws, [code + width[m], self.hidden, 1]) for m in MODALITIES}
        of_feature = {m: Network(draws, [width[m], self.hidden, 1]) for m in MODALITIES}
        dropped = partial(draws.dropout, rate=self.dropout)

        def terms(part: Batch, share: float) -> Terms:
            a, wrong = part.of_classes(part.class_text), another_class(draws, part.same)
            c = {m: forward[m](part[m], dropped) for m in MODALITIES}
            found: list[Terms] = []
            for m in MODALITIES:
                x, again = part[m], back[m](c[m], dropped)
                real, made = torch.cat([a, x], 2), [torch.cat([c[n], x], 2) for n in MODALITIES]
                away = total(half(c[m], taken(c[n], wrong)) for n in MODALITIES) * (wrong >= 0)
                found.append(
                    {
                        "critic": judged(of_code[m], real, made) + judged(of_feature[m], x, [again]),
                        "matching": total(discrepancy(of_code[m], one, real) for one in made)
                        + discrepancy(of_feature[m], again, x),
                        "semantic": (self.margin * half(c[m], a) - away).relu().mean(1),
                        "reconstruction": half(again, x).mean(1),
                    }
                )
            return {name: total(one[name] for one in found) for name in found[0]}

        networks = [one for each in (forward, back, of_code, of_feature) for one in each.values()]
        watched = self.descend(data, draws, [p for one in networks for p in one.parameters], terms)
        return learnt_of(forward, Network.of_rows(data.class_text), watched)

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return unit(super().embed(x, modality))


def judged(critic: Network, real: Tensor, made: Sequence[Tensor]) -> Tensor:
    """The critic's own loss on items ``[E,n,d]``: the mean BCE of real ones, and of each kind of made ones, ``[E]``."""
    wrong = softplus(-critic(real)) + total(softplus(critic(one.detach())) for one in made)
    return wrong.mean((1, 2))


def discrepancy(critic: Network, made: Tensor, real: Tensor) -> Tensor:
    """The MMD between items ``[E,n,d]`` in all layers of the critic but the last, whose own weights stay, ``[E]``."""
    x, y = (torch.cat(critic.fixed().layer_by_layer(items)[:-1], 2) for items in (made, real))
    return mean_discrepancy(x, y)


def mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The root of the biased squared MMD of ``x [E,n,d]`` and ``y [E,n,d]`` by k = Σ_σ e^(−‖x − y‖² / 2σ²), ``[E]``."""
    both = torch.cat([x, y], 1)
    length = both.square().sum(2)
    squared = (length[:, :, None] + length[:, None] - 2 * both @ both.mT).clamp_min(0)
    rates = torch.tensor([-0.5 / sigma**2 for sigma in BANDWIDTHS]).to(x)
    kernel = (squared[..., None] * rates).exp().sum(3)
    sign = torch.ones_like(length)
    sign[:, x.shape[1] :] = -1
    return ((sign[:, :, None] * kernel * sign[:, None]).sum((1, 2)) / x.shape[1] ** 2).clamp_min(1e-6).sqrt()


def half(x: Tensor, y: Tensor) -> Tensor:
    """½‖x − y‖² of each item, ``[E,n]``."""
    return (x - y).square().sum(2) / 2


def another_class(draws: Draws, same: Tensor) -> Tensor:
    """For each item a random item of another class, ``[E,n]``; -1 where there is none."""
    drawn = draws.uniform(*same.shape[1:]).masked_fill(same, -1.0)
    return torch.where(same.all(2), -1, drawn.argmax(2))
