"""FLEX-CLIP: feature generation for the target classes, then gated projection to a common space."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from xshot_bench.methods.base import (
    MODALITIES,
    Declined,
    EmbeddingMethod,
    Modality,
    Pairs,
    PosteriorMethod,
    Scoring,
    Task,
)
from xshot_bench.methods.flexclip.generation import FeatureGenerator
from xshot_bench.methods.flexclip.projection import CommonSpace, training_set
from xshot_bench.methods.flexclip.stacked import M, unit


class FlexClip(EmbeddingMethod, PosteriorMethod):
    """FLEX-CLIP (Xie et al., arXiv 2411.17454): a documented reconstruction, not the authors' code."""

    generation: Literal["vaegan", "vae", "gan", "none"] = "vaegan"
    fusion: Literal["gate", "half", "none", "shut"] = "gate"
    score_by: Literal["cosine", "posterior"] = "cosine"

    latent: int = 64
    hidden: int = 192
    rounds: int = 300
    critic_steps: int = 3
    batch: int = 48
    generator_rate: float = 1e-3
    reconstruction: float = 20.0
    kl: float = 0.1
    gan: float = 1.0
    penalty: float = 10.0
    spread: float = 1.0
    pseudo: int = 100

    projector_hidden: int = 192
    dropout: float = 0.1
    gate_bias: float = -1.0
    steps: int = 200
    projector_batch: int = 128
    projector_rate: float = 5e-4
    temperature: float = 16.0
    alignment: float = 0.1
    shot_share: float = 0.5

    stack: ClassVar = True
    ablations: ClassVar = {
        "nogen": {"generation": "none"},
        "vae": {"generation": "vae"},
        "gan": {"generation": "gan"},
        "nofusion": {"fusion": "none"},
        "half": {"fusion": "half"},
        "shut": {"fusion": "shut"},
        "posterior": {"score_by": "posterior"},
    }

    @property
    def scoring(self) -> Scoring:
        return self.score_by

    def fit(self, task: Task) -> None:
        self._train([self], [task])

    def fit_many(self, tasks: Sequence[Task]) -> list[Self]:
        fitted = [copy.copy(self) for _ in tasks]
        self._train(fitted, tasks)
        return fitted

    @torch.no_grad()
    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return self.projectors[modality](x[None])[0][0]

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return unit(self.embed(x, modality)) @ self.classifier.T

    def diagnostics(self) -> dict[str, float]:
        return self.watched

    def _train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        """Both stages on E draws at once; ``fitted[e]`` becomes the method of ``tasks[e]``."""
        if any(task.source.image.shape[1] != task.class_text.shape[1] for task in tasks):
            raise Declined("images, texts and class texts must have features of one length")
        watched: list[dict[str, float]] = [{} for _ in tasks]
        pseudo: Sequence[Pairs | None] = [None] * len(tasks)
        if self.generation != "none":
            generator = FeatureGenerator(self, tasks)
            generator.train()
            pseudo = generator.pseudo_pairs([task.target_classes for task in tasks])
            watched = generator.diagnostics()
        space = CommonSpace(self, tasks)
        space.train([training_set(task, made, self.shot_share) for task, made in zip(tasks, pseudo, strict=True)])
        for e, (method, task) in enumerate(zip(fitted, tasks, strict=True)):
            method.projectors = {m: space.projector.only(e * M + i) for i, m in enumerate(MODALITIES)}
            method.classifier = unit(space.classifier[e, task.candidates].detach())
            gates = [torch.as_tensor(method.projectors[m](task.source[m][None])[1]).mean() for m in MODALITIES]
            method.watched = watched[e] | {"mean gate": float(sum(gates)) / M}
