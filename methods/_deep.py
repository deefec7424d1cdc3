"""What the deep cross-modal methods share: a network for each modality, batches of labelled pairs, the loop.

The networks of E draws stand side by side (_stacking.py). Images and texts may have features of different lengths.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, one_hot

from xshot_bench.methods._linear import Standard
from xshot_bench.methods._stacking import Draws, StackedEmbeddingMethod
from xshot_bench.methods._training import Adam
from xshot_bench.methods.base import MODALITIES, Declined, Modality, Task

Terms = Mapping[str, Tensor]  # of a loss, by name: [E] each
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh, "gelu": gelu}


@dataclass(frozen=True)
class Batch:
    """Labelled pairs of E draws: standardised ``image [E,n,d_i]`` and ``text [E,n,d_t]``, and classes ``label [E,n]``.

    class_text ``[E,C,d]``: the unit texts of all classes, without columns where there are none.
    """

    image: Tensor
    text: Tensor
    label: Tensor
    class_text: Tensor

    def __getitem__(self, modality: Modality) -> Tensor:
        return self.image if modality == "image" else self.text

    @property
    def onehot(self) -> Tensor:
        """The classes as rows of zeros and a one, ``[E,n,C]``."""
        return one_hot(self.label, self.class_text.shape[1]).to(self.image)

    @property
    def same(self) -> Tensor:
        """Whether pair i and pair j are of one class, ``[E,n,n]``."""
        return self.label[:, :, None] == self.label[:, None]

    def rows(self, at: Tensor) -> Batch:
        """The pairs at ``at [E,B]``."""
        return replace(self, image=taken(self.image, at), text=taken(self.text, at), label=self.label.gather(1, at))

    def of_classes(self, codes: Tensor) -> Tensor:
        """Each pair's class's row of ``codes [E,C,d]``, ``[E,n,d]``."""
        return taken(codes, self.label)

    @cached_property
    def limits(self) -> Tensor:
        """The running sums ``[E,n]`` of how often each pair is drawn: each class equally often."""
        count = self.onehot.sum(1).gather(1, self.label)
        return (1 / count.double()).cumsum(1)

    def drawn(self, draws: Draws, size: int) -> Batch:
        """``size`` pairs of each draw, with replacement, each class equally often: a shot is not swamped."""
        at = torch.searchsorted(self.limits, draws.uniform(size).double() * self.limits[:, -1:], right=True)
        return self.rows(at.clamp_max(self.limits.shape[1] - 1))


class Network:
    """E multilayer perceptrons side by side, with an activation between the layers and, with ``last``, after them.

    They start as ``torch.nn.Linear`` does. Input and output are ``[E,B,in] -> [E,B,out]``, of the network that ``only``
    takes out ``[n,in] -> [n,out]``.
    """

    def __init__(self, draws: Draws, widths: Sequence[int], activation: str = "relu", last: bool = False) -> None:
        self.activation, self.last = activation, last
        self.layers: list[tuple[Tensor, Tensor]] = []
        for inputs, outputs in pairwise(widths):
            start = (2 * draws.uniform(inputs + 1, outputs) - 1) / inputs**0.5
            self.layers.append((start[:, 1:].clone().requires_grad_(), start[:, :1].clone().requires_grad_()))

    @classmethod
    def of_rows(cls, rows: Tensor) -> Network:
        """The inner products with ``rows [E,C,d]``, ``[E,n,d] -> [E,n,C]``."""
        network = cls.__new__(cls)
        network.activation, network.last = "relu", False
        network.layers = [(rows.mT, torch.zeros_like(rows[:, None, :, 0]))]
        return network

    def __call__(self, x: Tensor, between: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        """``between`` is applied to what is passed on from layer to layer: dropout, say."""
        return self.layer_by_layer(x, between)[-1]

    def layer_by_layer(self, x: Tensor, between: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
        """The input and the output of every layer."""
        passed = [x]
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if self.last or i < len(self.layers) - 1:
                x = between(ACTIVATIONS[self.activation](x))
            passed.append(x)
        return passed

    @property
    def parameters(self) -> list[Tensor]:
        return [part for layer in self.layers for part in layer]

    def only(self, draw: int) -> Network:
        """The network of one draw by itself, detached."""
        return self._with((weight[draw].detach().clone(), bias[draw].detach().clone()) for weight, bias in self.layers)

    def fixed(self) -> Network:
        """The same, for gradients to go through and not into."""
        return self._with((weight.detach(), bias.detach()) for weight, bias in self.layers)

    def first(self, outputs: int) -> Network:
        """The same with the first ``outputs`` numbers of its output alone."""
        weight, bias = self.layers[-1]
        return self._with([*self.layers[:-1], (weight[..., :outputs], bias[..., :outputs])])

    def _with(self, layers: Iterable[tuple[Tensor, Tensor]]) -> Network:
        other = copy.copy(self)
        other.layers = list(layers)
        return other


@dataclass(frozen=True)
class Learnt:
    """What one draw's training leaves: the networks into the common space, what classifies there, what was watched."""

    network: dict[Modality, Network]
    classifier: Network | None
    watched: dict[str, float]


class DeepMethod(StackedEmbeddingMethod):
    """Networks of both modalities into one space, learnt by gradient descent from all labelled pairs.

    Features are standardised by the labelled pairs, and each class is drawn equally often. Adam's rate falls to 0 as a
    cosine does, and the last step is kept: published code of this family keeps the best epoch on test items.

    steps, batch, rate, beta1: of Adam; the published rate is 1e-4 and β₁ .5 nearly everywhere, over more steps; the
        methods' own rates were chosen on validation classes.
    score_by: ``cosine`` in the common space, or class ``posterior`` by a classifier there, which needs items of the
        target classes.
    """

    steps: int = 200
    batch: int = 64
    rate: float = 1e-4
    beta1: float = 0.5

    needs: ClassVar = frozenset()

    def __post_init__(self) -> None:
        self.standard: dict[Modality, Standard] = {}
        self.learnt = Learnt({}, None, {})
        self.candidates = torch.empty(0, dtype=torch.long)

    @abstractmethod
    def learn(self, data: Batch, tasks: Sequence[Task]) -> Sequence[Learnt]:
        """Train on the labelled pairs of all draws."""

    def train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.check(task)
        standards = [{m: Standard.of(task.labelled[m]) for m in MODALITIES} for task in tasks]
        image, text = (
            torch.stack([standard[m](task.labelled[m]) for standard, task in zip(standards, tasks, strict=True)])
            for m in MODALITIES
        )
        label = torch.stack([task.labelled.label for task in tasks])
        learnt = self.learn(Batch(image, text, label, torch.stack([task.class_text for task in tasks])), tasks)
        for method, task, standard, one in zip(fitted, tasks, standards, learnt, strict=True):
            method.standard, method.learnt, method.candidates = standard, one, task.candidates

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return self.learnt.network[modality](self.standard[modality](x))

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        if self.learnt.classifier is None:
            raise Declined("nothing is known of the target classes that a classifier could learn from")
        return self.learnt.classifier(self.embed(x, modality))[:, self.candidates]

    def diagnostics(self) -> dict[str, float]:
        return self.learnt.watched

    def check(self, task: Task) -> None:
        """Raise `Declined` with a reason where the method does not apply."""
        if not len(task.labelled):
            raise Declined("needs labelled items to learn from; there are none")
        if self.score_by == "posterior" and not task.shots:
            raise Declined("a classifier of the target classes needs labelled items of them: at least one shot")

    def descend(
        self, data: Batch, draws: Draws, parameters: Sequence[Tensor], terms: Callable[[Batch, float], Terms]
    ) -> list[dict[str, float]]:
        """All steps down the sum of a loss's terms, each weighted by the parameter of its name, if there is one.

        terms: of a batch, and of the share of the training that is behind it. Returned are each draw's last ones.
        """
        optimiser = Adam(parameters, self.rate, self.beta1)
        last: Terms = {}
        for step in range(self.steps):
            last = terms(data.drawn(draws, self.batch), step / self.steps)
            losses = sum((getattr(self, name, 1.0) * term for name, term in last.items()), data.image.new_zeros(()))
            gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
            optimiser.step(gradients, (1 + math.cos(math.pi * step / self.steps)) / 2)
        return [{name: float(term[e].detach()) for name, term in last.items()} for e in range(len(data.label))]


def entropy(logits: Tensor, label: Tensor) -> Tensor:
    """The mean cross-entropy of ``logits [E,n,C]`` and ``label [E,n]``, ``[E]``."""
    return cross_entropy(logits.mT, label, reduction="none").mean(1)


def learnt_of(
    network: Mapping[Modality, Network], classifier: Network | None, watched: Sequence[dict[str, float]]
) -> list[Learnt]:
    """Each draw's own."""
    return [
        Learnt({m: network[m].only(e) for m in MODALITIES}, classifier and classifier.only(e), one)
        for e, one in enumerate(watched)
    ]


def taken(x: Tensor, at: Tensor) -> Tensor:
    """The rows of ``x [E,n,d]`` at ``at [E,B]``, ``[E,B,d]``."""
    return x[torch.arange(len(at), device=at.device)[:, None], at]


def total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)
