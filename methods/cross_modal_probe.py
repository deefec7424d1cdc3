"""Cross-modal linear probe: class prompts are training samples like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods._heads import HeadMethod
from xshot_bench.methods._training import Adam, Samples, State, descend
from xshot_bench.methods.base import Task


class CrossModalProbe(HeadMethod):
    """One linear classifier of images and texts, which starts at the class texts (Lin et al., CVPR 2023).

        logits(x) = s·x·Wᵀ        W [K,d], rows not normalised, at first the class texts; s the encoder's logit scale

    minimises half the mean cross-entropy of images and half that of texts, as the published sampler does, which fills
    half of every batch with either. Texts are the class prompts, and here those of the shots too; ``image`` leaves
    these out, as published. The published search over rate, decay and iterations on validation shots is left out:
    they are constants, and the last epoch is kept. At X = 0 it learns from the prompts alone.
    """

    rate: float = 1e-3
    decay: float = 0.01
    epochs: int = 200
    batch: int = 256

    ablations: ClassVar = {"image": {"train_on": "image"}, "own": {"train_on": "own"}}
    search: ClassVar = {"rate": (1e-4, 3e-4, 1e-3), "epochs": (100, 200, 400, 800)}

    def samples(self, tasks: Sequence[Task]) -> Samples:
        given = super().samples(tasks)
        networks, classes, _ = given.text.shape
        prompts = given.text[:, :, None].expand(-1, -1, given.views.shape[2], -1)
        own_class = torch.arange(classes, device=given.column.device).expand(networks, -1)
        is_text = torch.cat([given.is_text, torch.ones_like(own_class, dtype=torch.bool)], 1)
        halves = [
            half / half.sum(1, keepdim=True).clamp_min(1) for half in (is_text.to(prompts), (~is_text).to(prompts))
        ]
        weight = halves[0] + halves[1]
        return replace(
            given,
            views=torch.cat([given.views, prompts], 1),
            column=torch.cat([given.column, own_class], 1),
            is_text=is_text,
            weight=weight / weight.mean(1, keepdim=True),
        )

    def learn(self, given: Samples) -> State:
        state = given.zero_shot | {"weight": given.text.clone().requires_grad_()}
        optimiser = Adam([state["weight"]], self.rate, decay=self.decay)
        descend(optimiser, given, lambda part: part.entropy(self.classify(state, part.x)), self.epochs, self.batch)
        return state

    def classify(self, state: State, x: Tensor) -> Tensor:
        return state["scale"] * x @ state["weight"].mT
