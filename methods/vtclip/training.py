"""What a guide learns from: a draw's labelled items in batches, and the loss of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from xshot_bench.methods._training import State
from xshot_bench.methods.base import Declined, Task
from xshot_bench.methods.vtclip.attention import Guide

Objective = Literal["suited", "classes", "pairs", "both"]
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Lesson:
    """Of one draw: images and texts ``[n,d]``, tokens ``[n,P,d]``, each of the class at ``row [n]`` of the K texts.

    class_text ``[K,d]``: of the classes that there are items of.
    """

    guide: Guide
    image: Tensor
    text: Tensor
    tokens: Tensor
    row: Tensor
    class_text: Tensor
    scale: float
    objective: Objective
    generator: torch.Generator

    @classmethod
    def of(cls, task: Task, guide: Guide, objective: Objective) -> Self:
        """All labelled items of a task. Raises `Declined` where there are none."""
        pairs = task.labelled
        if not len(pairs):
            raise Declined("there are no labelled items to learn from")
        if pairs.tokens is None:
            raise ValueError("VT-CLIP needs the images' tokens")
        if objective == "suited":
            objective = "both" if len(task.source) else "classes"
        classes, row = pairs.label.unique(return_inverse=True)
        generator = task.generator("vtclip: batches")
        text = task.class_text[classes]
        return cls(guide, pairs.image, pairs.text, pairs.tokens, row, text, task.scale, objective, generator)

    def batch(self, size: int) -> Batch:
        """Some items, classes drawn equally often: images, texts, tokens, rows; and the class texts."""
        often = torch.bincount(self.row)[self.row].double().reciprocal().cpu()
        at = torch.multinomial(often, size, replacement=True, generator=self.generator).to(self.row.device)
        return self.image[at], self.text[at], self.tokens[at], self.row[at], self.class_text

    def loss(self, state: State, batch: Batch) -> Tensor:
        """Of a batch, by the guide with the weights of ``state``."""
        image, text, tokens, row, classes = batch
        asked = {"classes": classes, "pairs": text}.get(self.objective, torch.cat([classes, text]))
        logits = self.scale * functional_call(self.guide, state, (image, asked, classes, tokens))
        loss = logits.new_zeros(())
        if self.objective != "pairs":
            loss = loss + cross_entropy(logits[:, : len(classes)], row)
        if self.objective != "classes":
            among = logits[:, len(asked) - len(row) :]
            same = (row[:, None] == row).to(logits)
            right = same / same.sum(1, keepdim=True)
            loss = loss + (cross_entropy(among, right) + cross_entropy(among.T, right)) / 2
        return loss
