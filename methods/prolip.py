"""ProLIP: the projection into the joint space, fine-tuned but held to where it was."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods._heads import AdapterMethod
from xshot_bench.methods._training import Adam, Samples, State, descend, unit


class ProLip(AdapterMethod):
    """Fine-tunes the last linear map of the tower (Fahes et al., arXiv 2410.05270).

        x' = norm(xW), W [d,d], at first I;  loss = CE of s·x'·T + (strength/K)·‖W − I‖²,  K labelled items a class

    The paper fine-tunes the projection P of the features h before it, f = hP, with the penalty ‖P' − P‖². Harnesses
    keep f, not h; but a map of f is P' = PW, the same update confined to P's columns, with ‖P(W − I)‖² for a penalty:
    the same form, and the same number where P has orthonormal rows. The published K is the number of shots; here it
    is the mean number of labelled items a class, source classes too. As published the image side is adapted (switch
    ``image``); here texts too, each by a map of its own. The last epoch is kept.
    """

    strength: float = 0.1
    rate: float = 3e-4
    epochs: int = 100
    batch: int = 256

    ablations: ClassVar = {
        "image": {"adapt": "image"},
        "posterior": {"score_by": "posterior"},
        "free": {"strength": 0.0},
    }
    search: ClassVar = {"rate": (1e-4, 3e-4, 1e-3), "strength": (0.03, 0.1, 0.3, 1.0)}

    def learn(self, given: Samples) -> State:
        eye = torch.eye(given.text.shape[2], dtype=given.text.dtype, device=given.text.device)
        state = {"map": eye.repeat(len(given.text), 1, 1).requires_grad_()}
        hold = self.strength * given.text.shape[1] / given.column.shape[1]

        def loss(part: Samples) -> Tensor:
            return self.loss(state, part) + hold * (state["map"] - eye).square().sum((1, 2))

        descend(Adam([state["map"]], self.rate), given, loss, self.epochs, self.batch)
        return state

    def map(self, state: State, x: Tensor) -> Tensor:
        return unit(x @ state["map"])
