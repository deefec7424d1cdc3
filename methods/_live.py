"""What methods share that learn inside of the encoder's towers, from a few classes at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from xshot_bench.methods._training import Adam
from xshot_bench.methods.base import Declined, Task
from xshot_bench.methods.task import Towers


def towers_of(task: Task) -> Towers:
    if task.towers is None:
        raise Declined("needs gradients in the encoder's towers")
    return task.towers


@dataclass(frozen=True)
class Batch:
    """Some classes with labelled items of them: ``classes [K]``; ``place [K]``, their positions among all learnt from.

    row ``[n]``: of the items. column ``[n]``: which of the K classes each is of. weight ``[n]``: classes weigh alike.
    """

    classes: Tensor
    place: Tensor
    row: Tensor
    column: Tensor
    weight: Tensor

    def entropy(self, logits: Tensor) -> Tensor:
        """The cross-entropy of ``logits [n,K]``, the mean over classes of the means over their items."""
        return (self.weight.to(logits) * cross_entropy(logits, self.column, reduction="none")).sum()

    def one_of_each(self, generator: torch.Generator) -> Batch:
        """The batch with one item of each class, drawn at random."""
        order = torch.randperm(len(self.row), generator=generator).to(self.row.device)
        column = self.column[order]
        first = torch.stack([order[torch.nonzero(column == k)[0, 0]] for k in range(len(self.classes))])
        each = torch.full((len(first),), 1 / len(first), device=first.device)
        return Batch(self.classes, self.place, self.row[first], self.column[first], each)


def batches(label: Tensor, steps: int, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """In each step ``size`` of the classes (all, if there are fewer), drawn at random, with all of their items."""
    classes = label.unique()
    for _ in range(steps):
        place = torch.randperm(len(classes), generator=generator)[:size].to(label.device)
        found = label[:, None] == classes[place]
        row = torch.nonzero(found.any(1)).flatten()
        column = found[row].int().argmax(1)
        weight = 1 / torch.bincount(column)[column] / len(place)
        yield Batch(classes[place], place, row, column, weight)


def descend(
    parameters: Sequence[Tensor], rate: float, decay: float, steps: int, losses: Callable[[], Iterator[Tensor]]
) -> float:
    """Move the parameters against each loss, at a rate that falls to 0 as a cosine does; returns the last loss."""
    optimiser, last = Adam(parameters, rate, decay=decay), torch.zeros(())
    for step, last in enumerate(losses()):
        share = (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.step(torch.autograd.grad(last, optimiser.parameters), share)
    return float(last.detach())
