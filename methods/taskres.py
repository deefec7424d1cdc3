"""TaskRes: a residual to each class text."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods._heads import HeadMethod
from xshot_bench.methods._training import Adam, Samples, State, descend, unit


class TaskRes(HeadMethod):
    """Class texts with a learnt residual (Yu et al., CVPR 2023).

        logits(x) = s·x·norm(T + alpha·R)ᵀ        R [K,d], at first 0; s the encoder's logit scale

    minimises the mean cross-entropy with Adam at a cosine rate; no validation, the last epoch is kept. In the paper T
    is not normalised, so that its alpha = .5 and rate = .002 are larger here, where its rows are of length 1.
    """

    alpha: float = 0.5
    rate: float = 2e-3
    epochs: int = 100
    batch: int = 256

    ablations: ClassVar = {"image": {"train_on": "image"}, "own": {"train_on": "own"}}
    search: ClassVar = {"rate": (5e-4, 1e-3, 2e-3, 4e-3), "epochs": (50, 100, 200)}

    def learn(self, given: Samples) -> State:
        state = given.zero_shot | {"residual": torch.zeros_like(given.text, requires_grad=True)}
        optimiser = Adam([state["residual"]], self.rate)
        descend(optimiser, given, lambda part: part.entropy(self.classify(state, part.x)), self.epochs, self.batch)
        return state

    def classify(self, state: State, x: Tensor) -> Tensor:
        return state["scale"] * x @ unit(state["text"] + self.alpha * state["residual"]).mT
