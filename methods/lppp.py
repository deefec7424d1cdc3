"""LP++: a linear probe blended with the class texts, whose step sizes come from the data."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods._heads import HeadMethod
from xshot_bench.methods._training import Samples, Sgd, State

ALPHA_EVERY = 10  # epochs between two steps of alpha
BIAS_RATE = 4.0


class LPpp(HeadMethod):
    """LP++ (Huang et al., CVPR 2024): logits(x)ₖ = x·(wₖ + αₖtₖ) + bₖ, both W and α learnt by cross-entropy.

    It starts at wₖ = the sum of class k's items, b = 0 and αₖ = alpha_start · meanₖ(mean cosine of class k's items with
    its text), one number for all. All items are one batch. With N items F [N,d], from the Lipschitz constants:

        rate of W = 4N / λₘₐₓ(FᵀF), with momentum .9; rate of α = N / (4·maxₖ Σᵢ(fᵢ·tₖ)²), every 10th epoch

    In the published code b has W's rate, which is too large where features do not lie in a narrow cone as CLIP's do;
    here it is 4N/N, for what b is multiplied with is 1. The last epoch is kept (published: the best one on validation
    items), and b starts at 0, not at random. At X = 0 it is zero-shot classification.

    accumulate_alpha_grad: as in the published code, α's step uses the sum of the gradients of all epochs so far; the
        paper's algorithm uses the last one.
    """

    alpha_start: float = 250.0
    accumulate_alpha_grad: bool = False
    epochs: int = 300

    ablations: ClassVar = {
        "accumulate": {"accumulate_alpha_grad": True},
        "image": {"train_on": "image"},
        "own": {"train_on": "own"},
    }
    search: ClassVar = {"alpha_start": (50.0, 100.0, 250.0, 500.0), "epochs": (100, 300, 1000)}

    def learn(self, given: Samples) -> State:
        if not given.column.shape[1]:
            return given.zero_shot | self._state(torch.zeros_like(given.text), given.scale)
        sums = given.onehot.mT @ given.x
        alpha = self.alpha_start * (sums * given.text).sum(-1) / given.onehot.sum(1).clamp_min(1)
        state = given.zero_shot | self._state(sums, alpha.mean(1, keepdim=True))
        trained = [state[name].requires_grad_() for name in ("weight", "bias", "alpha")]
        rate, alpha_rate = step_sizes(given)
        optimisers = Sgd(trained[:1], rate), Sgd(trained[1:2], BIAS_RATE)
        gathered = torch.zeros_like(state["alpha"])
        for epoch, part in enumerate(given.batches(self.epochs, given.column.shape[1])):
            *gradients, slope = torch.autograd.grad(part.entropy(self.classify(state, part.x)).sum(), trained)
            for optimiser, gradient in zip(optimisers, gradients, strict=True):
                optimiser.step([gradient])
            gathered = gathered + slope if self.accumulate_alpha_grad else slope
            if (epoch + 1) % ALPHA_EVERY == 0:
                state["alpha"].data -= alpha_rate * gathered
        return state

    def classify(self, state: State, x: Tensor) -> Tensor:
        return x @ (state["weight"] + state["alpha"] * state["text"]).mT + state["bias"]

    def _state(self, weight: Tensor, alpha: Tensor | float) -> State:
        """W ``[S,K,d]``, b ``[S,1,K]`` and α ``[S,K,1]``."""
        networks, classes, _ = weight.shape
        return {
            "weight": weight.clone(),
            "bias": weight.new_zeros(networks, 1, classes),
            "alpha": (weight.new_ones(networks, classes) * alpha)[..., None],
        }


def step_sizes(given: Samples) -> tuple[Tensor, Tensor]:
    """The rates of W and of α, ``[S,1,1]`` each."""
    count = given.column.shape[1]
    largest = torch.linalg.matrix_norm(given.x, ord=2).square()
    spread = (given.x @ given.text.mT).square().sum(1).amax(1)
    return (4 * count / largest)[:, None, None], (count / (4 * spread))[:, None, None]
