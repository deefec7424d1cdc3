"""CLAP: a linear probe that starts at the class texts and is held to them where they can be trusted."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from xshot_bench.methods._heads import HeadMethod
from xshot_bench.methods._training import Samples, Sgd, State, descend, unit


class Clap(HeadMethod):
    """Class-adaptive linear probe (Silva-Rodriguez et al., CVPR 2024).

        logits(x) = s·x·norm(W)ᵀ        W [K,d], at first W⁰, the class texts; s the encoder's logit scale
        loss = mean CE + penalty · meanₖ λₖ‖wₖ − w⁰ₖ‖²

    λₖ is the mean zero-shot probability of the true class over the items of class k, before training; 0 for a class
    without items. Gradient descent with momentum at a cosine rate, no validation, the last epoch is kept. The paper's
    W⁰ is not normalised: with rows of length L, its rate .1 is .1/L² for the unit rows here, and its penalty 1 is L².
    Left out: the warm-up epoch, and the variant that updates λ in training.

    weights: λ by ``class``, the mean λ for all (``constant``), or 1 (``balanced``).
    """

    penalty: float = 1.0
    weights: Literal["class", "constant", "balanced"] = "class"
    rate: float = 0.01
    epochs: int = 300
    batch: int = 256

    ablations: ClassVar = {
        "zslp": {"penalty": 0.0},
        "constant": {"weights": "constant"},
        "balanced": {"weights": "balanced"},
        "image": {"train_on": "image"},
        "own": {"train_on": "own"},
    }
    search: ClassVar = {"rate": (1e-3, 3e-3, 0.01), "penalty": (0.1, 0.3, 1.0, 3.0)}

    def learn(self, given: Samples) -> State:
        state = given.zero_shot | {"weight": given.text.clone().requires_grad_()}
        hold = self.penalty * self.trust(given)

        def loss(part: Samples) -> Tensor:
            drift = (state["weight"] - given.text).square().sum(-1)
            return part.entropy(self.classify(state, part.x)) + (hold * drift).mean(1)

        descend(Sgd([state["weight"]], self.rate), given, loss, self.epochs, self.batch)
        return state

    def trust(self, given: Samples) -> Tensor:
        """λ ``[S,K]``."""
        onehot = given.onehot
        probability = torch.softmax(given.scale * given.x @ given.text.mT, dim=-1)
        trust = (probability * onehot).sum(1) / onehot.sum(1).clamp_min(1)
        if self.weights == "class":
            return trust
        return torch.ones_like(trust) if self.weights == "balanced" else trust.mean(1, keepdim=True).expand_as(trust)

    def classify(self, state: State, x: Tensor) -> Tensor:
        return state["scale"] * x @ unit(state["weight"]).mT
