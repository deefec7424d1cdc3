"""What methods of FLEX-CLIP's kind share: the parameters of both stages."""

from __future__ import annotations

from typing import ClassVar

from xshot_bench.methods._stacking import StackedEmbeddingMethod
from xshot_bench.methods.flexclip.projection import Fusion


class TwoStageMethod(StackedEmbeddingMethod):
    """Makes features of the target classes, then projects them and the labelled items' through a gate.

    latent, hidden: lengths of z and of the hidden layers of encoder, generator and critic.
    rounds, critic_steps: a round is this many steps of the critic and one of encoder and generator.
    reconstruction, kl, gan, penalty: weights of the terms of stage 1. spread: how far generated features vary about a
        class's mean: the standard deviation of z. pseudo: how many pairs are made of a target class.
    fusion: the learnt ``gate`` (a number for each dimension), a learnt ``scalar`` gate (one for the item), a
        ``constant`` one, ``none`` (the projected feature alone) or ``shut`` (the original's).
    gate_bias: where the gates start, and constant ones stay, before the sigmoid.
    temperature: of the cosine classifier's logits. alignment: weight of ‖h_v − h_t‖².
    """

    latent: int = 32
    hidden: int = 96
    rounds: int = 100
    critic_steps: int = 3
    batch: int = 48
    generator_rate: float = 1e-4
    reconstruction: float = 20.0
    kl: float = 0.1
    gan: float = 1.0
    penalty: float = 10.0
    spread: float = 1.0
    pseudo: int = 40

    fusion: Fusion = "gate"
    projector_hidden: int = 192
    dropout: float = 0.1
    gate_bias: float = -2.0
    steps: int = 150
    projector_batch: int = 48
    projector_rate: float = 1e-3
    temperature: float = 12.0
    alignment: float = 0.5

    needs: ClassVar = frozenset({"joint", "class_text", "source"})

    def __post_init__(self) -> None:
        self.watched: dict[str, float] = {}

    def diagnostics(self) -> dict[str, float]:
        return self.watched
