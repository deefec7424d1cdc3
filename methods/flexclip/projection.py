"""Stage 2: projectors to the common space, fused with the encoder's features by a gate residual network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu

from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import Adam, unit
from xshot_bench.methods.base import Pairs, Task
from xshot_bench.methods.flexclip.generation import class_uniform
from xshot_bench.methods.flexclip.stacked import Linear, M, Stack

if TYPE_CHECKING:
    from xshot_bench.methods.flexclip.two_stages import TwoStageMethod

Fusion = Literal["gate", "scalar", "constant", "none", "shut"]

BLOCK = 10  # steps whose random numbers are drawn at once
FIXED_GATE: dict[Fusion, float] = {"none": 1.0, "shut": 0.0}


def training_set(task: Task, pseudo: Pairs | None, shot_share: float) -> tuple[Pairs, Tensor]:
    """What stage 2 trains on, and how often each item is drawn: source items, shots, pseudo items of the targets.

    Classes are drawn equally often; a target class's draws fall on its shots with probability ``shot_share`` and on
    its pseudo items otherwise. At X = 0 and without generation no item of a target class is in it.
    """
    parts, weights = [task.source], [class_uniform(task.source.label)]
    share = shot_share if pseudo is not None else 1.0
    if len(task.support):
        parts.append(task.support)
        weights.append(share * class_uniform(task.support.label))
    if pseudo is not None:
        parts.append(pseudo)
        weights.append((1 - share if len(task.support) else 1.0) * class_uniform(pseudo.label))
    pairs = parts[0]
    for part in parts[1:]:
        pairs = pairs + part
    return pairs, torch.cat(weights)


class GatedProjector:
    """S projectors with their gates: u = unit(P(x)), h = g∘u + (1 − g)∘x, and g = sigmoid(W[x; u] + b) or fixed."""

    def __init__(self, hidden: Linear, out: Linear, gate: Linear, fusion: Fusion) -> None:
        self.hidden, self.out, self.gate, self.fusion = hidden, out, gate, fusion

    def __call__(self, x: Tensor, dropped: Tensor | float = 1.0) -> tuple[Tensor, Tensor | float]:
        """Features ``[S,B,d]`` to common-space embeddings h and gates g.

        g is ``[S,B,d]``, ``[S,B,1]`` for a scalar gate, ``[S,1,d]`` for a constant one, one number at 0 and 1.

        dropped: the dropout mask of the hidden layer, ``[S,B,hidden]``.
        """
        u = unit(self.out(gelu(self.hidden(x)) * dropped))
        if self.fusion in FIXED_GATE:
            g: Tensor | float = FIXED_GATE[self.fusion]
        else:
            g = torch.sigmoid(self.gate.bias if self.fusion == "constant" else self.gate(x, u))
        return g * u + (1 - g) * x, g

    def only(self, network: int) -> GatedProjector:
        """One of the projectors by itself."""
        hidden, out, gate = (part.only(network) for part in (self.hidden, self.out, self.gate))
        return GatedProjector(hidden, out, gate, self.fusion)

    @property
    def parameters(self) -> list[Tensor]:
        return self.hidden.parameters + self.out.parameters + self.gate.parameters


class CommonSpace:
    """The projectors of E draws and their classifiers, shared by the modalities: logits = temperature·unit(h)·unit(w).

    The loss is CE(h_v) + CE(h_t) + alignment·‖h_v − h_t‖² (flexclip.md, section 3.2); w starts at the class texts.
    """

    def __init__(self, method: TwoStageMethod, tasks: Sequence[Task]) -> None:
        self.method, self.tasks = method, tasks
        draws = Draws(tasks, "flexclip: initial projectors")
        width = tasks[0].class_text.shape[1]
        gates = 1 if method.fusion == "scalar" else width
        self.projector = GatedProjector(
            Linear.new(draws, [width], method.projector_hidden, gain=2**0.5),
            Linear.new(draws, [method.projector_hidden], width),
            Linear.new(draws, [width, width], gates, gain=0.0, bias=method.gate_bias),
            method.fusion,
        )
        self.classifier = torch.stack([task.class_text for task in tasks]).requires_grad_()

    def train(self, sets: Sequence[tuple[Pairs, Tensor]]) -> None:
        """All steps on the training sets, one a draw."""
        method, draws = self.method, Draws(self.tasks, "flexclip: stage 2")
        data = Stack(self.tasks, [pairs for pairs, _ in sets], [weights for _, weights in sets])
        optimiser = Adam(self._learnt(), method.projector_rate, beta1=0.9)
        for start in range(0, method.steps, BLOCK):
            steps = min(BLOCK, method.steps - start)
            at = data.drawn(draws, steps, method.projector_batch)
            kept = draws.uniform(steps, M, method.projector_batch, method.projector_hidden) >= method.dropout
            for s in range(steps):
                dropped = kept[:, s].flatten(0, 1) / (1 - method.dropout)
                optimiser.descend(self._loss(data.features(at[:, s]), data.label[at[:, s]], dropped))

    def _learnt(self) -> list[Tensor]:
        """What stage 2 trains: not the gate where it is fixed, nor the projectors where it is shut."""
        if self.method.fusion == "shut":
            return [self.classifier]
        gate = self.projector.gate.parameters if self.method.fusion in ("gate", "scalar") else []
        return [*self.projector.hidden.parameters, *self.projector.out.parameters, *gate, self.classifier]

    def _loss(self, x: Tensor, label: Tensor, dropped: Tensor) -> Tensor:
        h = unit(self.projector(x, dropped)[0]).unflatten(0, (-1, M))
        logits = self.method.temperature * h.flatten(1, 2) @ unit(self.classifier).mT
        batch = label.shape[1]
        entropy = cross_entropy(logits.flatten(0, 1), label.repeat(1, M).flatten(), reduction="sum") / batch
        distance = (h[:, 0] - h[:, 1]).square().sum() / batch
        return entropy + self.method.alignment * distance
