"""Tip-Adapter-F: the cache over the shots, with keys that are trained."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from xshot_bench.methods._heads import HeadMethod
from xshot_bench.methods._training import Adam, Samples, State, descend, unit


class TipAdapterF(HeadMethod):
    """A cache of the labelled items whose keys are learnt (Zhang et al., ECCV 2022).

        logits(x) = s·x·Tᵀ + alpha·exp(−beta(1 − x·Sᵀ))·Y        S [n,d] keys, at first the items; Y [n,K] one-hot

    Keys are trained by cross-entropy with AdamW at a cosine rate and are not normalised again; Y stays. At first it is
    Tip-Adapter. Published are a search for alpha and beta on the whole validation split and the best epoch on test
    items: here they are constants, and the last epoch is kept. Each modality has a cache of its own items; an item
    with several views has the mean of them as its key. At X = 0 the cache is empty: zero-shot classification.
    """

    train_on: Literal["both", "own", "image"] = "own"
    alpha: float = 1.0
    beta: float = 1.0
    rate: float = 1e-2
    epochs: int = 20
    batch: int = 256

    ablations: ClassVar = {"frozen": {"epochs": 0}, "both": {"train_on": "both"}, "image": {"train_on": "image"}}
    search: ClassVar = {"alpha": (0.5, 1.0, 2.0, 4.0), "beta": (0.5, 1.0, 2.0), "rate": (3e-3, 1e-2, 3e-2)}

    def learn(self, given: Samples) -> State:
        state = given.zero_shot | {"keys": unit(given.views.mean(2)).requires_grad_(), "values": given.onehot}
        optimiser = Adam([state["keys"]], self.rate, decay=0.01, eps=1e-4)
        descend(optimiser, given, lambda part: part.entropy(self.classify(state, part.x)), self.epochs, self.batch)
        return state

    def classify(self, state: State, x: Tensor) -> Tensor:
        affinity = torch.exp(-self.beta * (1 - x @ state["keys"].mT))
        return state["scale"] * x @ state["text"].mT + self.alpha * affinity @ state["values"]
