"""CLIP-Adapter: a residual bottleneck on the features."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from xshot_bench.methods._heads import AdapterMethod
from xshot_bench.methods._training import Adam, Samples, State, descend, unit


class ClipAdapter(AdapterMethod):
    """A bottleneck network beside the features (Gao et al., IJCV 2024; arXiv 2110.04544).

        A(x) = ReLU(W₂ ReLU(W₁x)), W₁ [d/reduction,d], W₂ [d,d/reduction], no bias;  x' = norm(ratio·A(x) + (1−ratio)·x)

    learns by cross-entropy of s·x'·T. As published the image side is adapted (switch ``image``); texts of items, which
    retrieval has and classification has not, get an adapter of their own. ReLU networks without bias scale with their
    input, so unit features give what the published ones, which are not normalised, give. The last epoch is kept.
    """

    ratio: float = 0.5
    reduction: int = 4
    rate: float = 3e-4
    epochs: int = 200
    batch: int = 256

    ablations: ClassVar = {
        "image": {"adapt": "image"},
        "posterior": {"score_by": "posterior"},
    }
    search: ClassVar = {"ratio": (0.2, 0.35, 0.5, 0.7), "rate": (1e-4, 3e-4, 1e-3), "epochs": (50, 200)}

    def learn(self, given: Samples) -> State:
        d = given.text.shape[2]
        narrow = max(d // self.reduction, 1)
        state = {"down": given.uniform(d, narrow).requires_grad_(), "up": given.uniform(narrow, d).requires_grad_()}
        optimiser = Adam(list(state.values()), self.rate)
        descend(optimiser, given, lambda part: self.loss(state, part), self.epochs, self.batch)
        return state

    def map(self, state: State, x: Tensor) -> Tensor:
        adapted = ((x @ state["down"]).relu() @ state["up"]).relu()
        return unit(self.ratio * adapted + (1 - self.ratio) * x)
