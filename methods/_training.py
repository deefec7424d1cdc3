"""Learning by gradient descent: labelled items side by side, the loop, the optimisers.

S networks of several draws, and of both modalities where each has its own, stand side by side: parameters are
``[S, ...]``, batches ``[S, B, d]``. No operation mixes two of them, so nothing is shared between draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.optim.adamw import adamw

from xshot_bench.methods.base import Modality, Pairs, Task

State = dict[str, Tensor]  # a method's tensors by name: those of S networks, or of one


@dataclass(frozen=True)
class Samples:
    """The labelled items of S networks.

    views ``[S,n,V,d]``: each item in V views (augmented pictures; one view is the item itself, as it is for a text).
    column ``[S,n]``: its class, as a row of ``text [S,K,d]``, the unit class texts. is_text ``[S,n]``: whether it is a
    text. weight ``[S,n]``: of its loss, 1 on average. scale: the encoder's logit scale. generators: one a network.
    """

    views: Tensor
    column: Tensor
    is_text: Tensor
    weight: Tensor
    text: Tensor
    scale: float
    generators: tuple[torch.Generator, ...]

    @property
    def x(self) -> Tensor:
        """Each item in its first view, ``[S,n,d]``."""
        return self.views[:, :, 0]

    @property
    def onehot(self) -> Tensor:
        """The classes as rows of zeros and a one, ``[S,n,K]``."""
        return torch.nn.functional.one_hot(self.column, self.text.shape[1]).to(self.text.dtype)

    @property
    def zero_shot(self) -> State:
        """What zero-shot classification takes: ``text [S,K,d]`` and ``scale [S,1,1]``."""
        return {"text": self.text, "scale": self.text.new_full((len(self.text), 1, 1), self.scale)}

    def uniform(self, inputs: int, outputs: int) -> Tensor:
        """A linear map that is not trained yet, ``[S,inputs,outputs]``, as ``torch.nn.Linear`` has it."""
        limit = inputs**-0.5
        drawn = self._drawn(lambda g: torch.rand(inputs, outputs, generator=g))
        return (2 * drawn.to(self.text.dtype) - 1) * limit

    def entropy(self, logits: Tensor) -> Tensor:
        """The weighted mean cross-entropy of ``logits [S,n,K]``, ``[S]``."""
        each = cross_entropy(logits.flatten(0, 1), self.column.flatten(), reduction="none")
        return (self.weight * each.view_as(self.weight)).mean(1)

    def batches(self, epochs: int, size: int) -> Iterator[Samples]:
        """Every item once an epoch, in random order and ``size`` at a time, in a view drawn at random."""
        networks, n, views, _ = self.views.shape
        network = torch.arange(networks, device=self.views.device)[:, None]
        for _ in range(epochs if n else 0):
            order = self._drawn(lambda g: torch.randperm(n, generator=g))
            view = self._drawn(lambda g: torch.randint(views, (n,), generator=g))
            for at, seen in zip(order.split(size, 1), view.split(size, 1), strict=True):
                yield replace(
                    self,
                    views=self.views[network, at, seen][:, :, None],
                    column=self.column.gather(1, at),
                    is_text=self.is_text.gather(1, at),
                    weight=self.weight.gather(1, at),
                )

    def _drawn(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators]).to(self.views.device)


class Optimiser(Protocol):
    """Moves its ``parameters`` against gradients, at ``share`` of its full rate."""

    parameters: list[Tensor]

    def step(self, gradients: Sequence[Tensor], share: float) -> None: ...


class Sgd:
    """Gradient descent with momentum; ``rate`` is one number, or a tensor that broadcasts to the parameters."""

    def __init__(self, parameters: Sequence[Tensor], rate: float | Tensor, momentum: float = 0.9) -> None:
        self.parameters, self.rate, self.momentum = list(parameters), rate, momentum
        self.velocity = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], share: float = 1.0) -> None:
        for parameter, velocity, gradient in zip(self.parameters, self.velocity, gradients, strict=True):
            velocity.mul_(self.momentum).add_(gradient)
            parameter.sub_(share * self.rate * velocity)


class Adam:
    """Adam in one fused step (Kingma & Ba, ICLR 2015); ``decay`` is decoupled (AdamW; Loshchilov & Hutter, ICLR 2019).

    It works number by number, so stacking networks changes nothing. ``torch.optim.AdamW`` does the same, but making
    one imports the compiler, which takes seconds in every process.
    """

    def __init__(
        self, parameters: Sequence[Tensor], rate: float, beta1: float = 0.9, decay: float = 0.0, eps: float = 1e-8
    ) -> None:
        self.parameters, self.rate, self.beta1, self.decay, self.eps = list(parameters), rate, beta1, decay, eps
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], share: float = 1.0) -> None:
        """Move the parameters against ``gradients``, one for each, at ``share`` of the full rate."""
        laid_out = [gradient.contiguous() for gradient in gradients]  # the fused step ignores a gradient's strides
        adamw(
            self.parameters, laid_out, self.means, self.squares, [], self.steps,
            fused=True, amsgrad=False, maximize=False, weight_decay=self.decay, eps=self.eps,
            lr=share * self.rate, beta1=self.beta1, beta2=0.999,
        )  # fmt: skip

    def descend(self, losses: Tensor) -> None:
        """One step on the sum of ``losses``; networks that share no loss stay apart."""
        self.step(torch.autograd.grad(losses.sum(), self.parameters))


def descend(
    optimiser: Optimiser, given: Samples, loss: Callable[[Samples], Tensor], epochs: int, batch: int = 256
) -> None:
    """Minimise ``loss`` of a batch, ``[S]``, over so many epochs, at a rate that falls to 0 as a cosine does."""
    total = epochs * math.ceil(given.column.shape[1] / batch)
    for step, part in enumerate(given.batches(epochs, batch)):
        gradients = torch.autograd.grad(loss(part).sum(), optimiser.parameters)
        optimiser.step(gradients, (1 + math.cos(math.pi * step / total)) / 2)


def samples_of(task: Task, group: Sequence[Modality], pairs: Pairs, classes: Tensor) -> Samples:
    """The items of these modalities under each other, for one network."""
    count = 1 if pairs.views is None else pairs.views.shape[1]
    views = [_views(pairs, modality, count) for modality in group]
    column = (pairs.label[:, None] == classes).int().argmax(1)
    is_text = torch.tensor([modality == "text" for modality in group], device=task.device)
    return Samples(
        views=torch.cat(views)[None],
        column=column.repeat(len(group))[None],
        is_text=is_text.repeat_interleave(len(pairs))[None],
        weight=torch.ones_like(views[0][:, 0, 0]).repeat(len(group))[None],
        text=task.class_text[classes][None],
        scale=task.scale,
        generators=(task.generator(f"training: {' and '.join(group)}"),),
    )


def _views(pairs: Pairs, modality: Modality, count: int) -> Tensor:
    """``[n,count,d]``; a text stands for all of its views."""
    if modality == "image" and pairs.views is not None:
        return pairs.views
    return pairs[modality][:, None].expand(-1, count, -1)


def side_by_side(networks: Sequence[Samples]) -> Samples:
    names = ("views", "column", "is_text", "weight", "text")
    stacked = {name: torch.cat([getattr(one, name) for one in networks]) for name in names}
    generators = tuple(generator for one in networks for generator in one.generators)
    return Samples(**stacked, scale=networks[0].scale, generators=generators)


def unit(x: Tensor) -> Tensor:
    return normalize(x, dim=-1)
