"""Networks of several draws and both modalities in one batched product.

S = E·M networks stand side by side, network e·M + m being that of draw e and modality m: parameters are
``[S, in, out]``, batches ``[S, B, in]``. No product mixes two of them, so nothing is shared between draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from xshot_bench.methods._stacking import Draws
from xshot_bench.methods.base import MODALITIES, Pairs, Task

M = len(MODALITIES)
SLOPE = 0.2  # of the leaky ReLU, as in the ancestors of FLEX-CLIP


class Stack:
    """The training items of E draws: ``items[positions]`` gives both modalities' features of a batch.

    weights: one vector a draw (float64, on the CPU): how often each of its items is drawn.
    """

    def __init__(self, tasks: Sequence[Task], pairs: Sequence[Pairs], weights: Sequence[Tensor]) -> None:
        self.weights = [w.double().cpu() for w in weights]
        self.starts = [sum(map(len, pairs[:e])) for e in range(len(pairs))]
        self.label = torch.cat([p.label for p in pairs])
        self.feature = torch.cat([torch.stack([p[m] for m in MODALITIES], dim=1) for p in pairs])
        self.codes = torch.stack([class_codes(task) for task in tasks])

    def drawn(self, draws: Draws, *shape: int) -> Tensor:
        """Positions ``[E, *shape]``, with replacement and in proportion to the weights."""
        return positions(draws, self.weights, self.starts, *shape)

    def features(self, at: Tensor) -> Tensor:
        """``[S, B, d]`` for positions ``[E, B]``."""
        return self.feature[at].transpose(1, 2).flatten(0, 1)

    def conditions(self, at: Tensor) -> Tensor:
        """The class codes of the items, ``[S, B, r]`` for positions ``[E, B]``."""
        return conditions(self.codes, self.label[at])


def positions(draws: Draws, weights: Sequence[Tensor], starts: Sequence[int], *shape: int) -> Tensor:
    """Positions ``[E, *shape]``, with replacement and in proportion to each draw's weights, from its start on."""
    drawn = []
    for weight, start, generator in zip(weights, starts, draws.generators, strict=True):
        limits = weight.double().cpu().cumsum(0)
        at = torch.rand(shape, generator=generator, dtype=torch.float64) * limits[-1]
        drawn.append(start + torch.searchsorted(limits, at, right=True).clamp_max(len(limits) - 1))
    return torch.stack(drawn).to(draws.like.device)


def class_basis(task: Task) -> Tensor:
    """An orthonormal basis of the span of the class texts ``[C,d]``, as columns: ``[d, min(C, d)]``."""
    basis, _ = torch.linalg.qr(task.class_text.T)
    return basis


def class_codes(task: Task) -> Tensor:
    """The class texts in that basis, ``[C, min(C, d)]``.

    Nothing is lost: all inner products stay, and so does what a linear map with a normal start makes of them.
    """
    return task.class_text @ class_basis(task)


def conditions(codes: Tensor, label: Tensor) -> Tensor:
    """Class codes ``[E, C, r]`` at labels ``[E, B]`` -> ``[S, B, r]``, the same for both modalities."""
    draw = torch.arange(len(label), device=label.device)[:, None]
    return codes[draw, label].repeat_interleave(M, dim=0)


class Linear:
    """S linear maps of one or more inputs side by side: ``weights [S,in,out]``, one for each input, ``bias [S,1,out]``.

    ``linear(x, a)`` is what a map of x and a joined would give.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor) -> None:
        self.weights, self.bias = tuple(weights), bias

    @classmethod
    def new(cls, draws: Draws, inputs: Sequence[int], outputs: int, gain: float = 1.0, bias: float = 0.0) -> Self:
        """Untrained: weights normal with variance gain²/inputs, biases at ``bias``."""
        deviation = gain / sum(inputs) ** 0.5
        weights = [draws.normal(M, n, outputs).flatten(0, 1).mul(deviation).requires_grad_() for n in inputs]
        constant = torch.full((len(weights[0]), 1, outputs), bias, device=draws.like.device, dtype=draws.like.dtype)
        return cls(weights, constant.requires_grad_())

    def __call__(self, *inputs: Tensor) -> Tensor:
        out = self.bias
        for x, weight in zip(inputs, self.weights, strict=True):
            out = torch.baddbmm(out, x, weight)
        return out

    def only(self, network: int) -> Linear:
        """One of the S maps by itself, detached."""
        weights = [weight[network, None].detach().clone() for weight in self.weights]
        return Linear(weights, self.bias[network, None].detach().clone())

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, self.bias]


def lrelu(x: Tensor) -> Tensor:
    return leaky_relu(x, SLOPE)
