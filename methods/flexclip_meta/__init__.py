"""FLEX-CLIP's two stages with a generator that learns across classes: our own method, not a paper's."""

from __future__ import annotations

import copy
import dataclasses
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
from xshot_bench.methods.flexclip.projection import CommonSpace, training_set
from xshot_bench.methods.flexclip.stacked import M, unit
from xshot_bench.methods.flexclip_meta.means import ClassMeans


class FlexClipMeta(EmbeddingMethod, PosteriorMethod):
    """FLEX-CLIP's two stages with a generator that learns across classes where a class lies. Ours, not a paper's.

    It departs from FLEX-CLIP (arXiv 2411.17454, see `flexclip`) in what the generator learns: not the source classes,
    but the step from a class's text and X simulated shots to its features, G(z, q) = unit(k₁·a + k₂·own + k₃·other +
    R(z, q)) (means.py). Its means start the classifier, and pseudo pairs about them join the training of the gated
    projectors as if they were ``prior_shots`` further shots. Items are classified, and compared by posterior.

    Features are centred first: x = unit(f − centring·μ), μ the mean of the source classes' means in f's modality.
    ``members`` projectors are trained on the same data from different starts, and their logits averaged.

    start: where the classifier's rows start: generated ``means``, ``prototypes`` unit(a + 2·unit(mean of the shots)),
        or the class ``text``. project: False leaves stage 2 out, so the generated means alone classify.
    spread: how far pseudo features vary about the mean; gan: weight of the critic's term (0: VAE only).
    """

    score_by: Literal["cosine", "posterior"] = "posterior"
    start: Literal["means", "prototypes", "text"] = "means"
    project: bool = True
    centring: float = 0.5
    members: int = 3

    latent: int = 32
    hidden: int = 192
    directions: int = 48
    rounds: int = 100
    critic_steps: int = 3
    batch: int = 48
    generator_rate: float = 3e-4
    reconstruction: float = 20.0
    kl: float = 0.1
    gan: float = 0.0
    penalty: float = 10.0
    spread: float = 0.0
    pseudo: int = 4
    prior_shots: float = 1.0

    fusion: Literal["gate", "half", "none", "shut"] = "gate"
    projector_hidden: int = 192
    dropout: float = 0.1
    gate_bias: float = -1.0
    steps: int = 150
    projector_batch: int = 48
    projector_rate: float = 5e-4
    temperature: float = 12.0
    alignment: float = 0.5

    needs: ClassVar = frozenset({"joint", "class_text", "source"})
    stack: ClassVar = True
    ablations: ClassVar = {
        "nogen": {"prior_shots": 0.0, "start": "prototypes"},
        "spread": {"spread": 1.0, "pseudo": 40},
        "gan": {"gan": 1.0},
        "half": {"fusion": "half"},
        "nofusion": {"fusion": "none"},
        "means": {"project": False},
        "single": {"members": 1},
        "cosine": {"score_by": "cosine"},
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
        """The members' embeddings under one another: the cosine of two is the mean of the members' cosines."""
        return torch.cat(list(self._embedded(x, modality)), 1)

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return sum(h @ w.T for h, w in zip(self._embedded(x, modality), self.classifier, strict=True))  # type: ignore[return-value]

    def diagnostics(self) -> dict[str, float]:
        return self.watched

    @torch.no_grad()
    def _embedded(self, x: Tensor, modality: Modality) -> list[Tensor]:
        x = unit(x - self.centre[modality])
        if not self.project:
            return [x]
        return [unit(projector(x[None])[0][0]) for projector in self.projectors[modality]]

    def _train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        """Both stages on E draws at once; ``fitted[e]`` becomes the method of ``tasks[e]``."""
        if any(len(task.source_classes) < 2 for task in tasks):
            raise Declined("learns across source classes, and there are none")
        centres = [centre(task, self.centring) for task in tasks]
        tasks = [centred(task, at) for task, at in zip(tasks, centres, strict=True)]
        targets = [task.target_classes for task in tasks]
        generator = ClassMeans(self, tasks)
        generator.train()
        starts = self._starts(tasks, generator)
        for e, method in enumerate(fitted):
            method.centre, method.watched = centres[e], generator.diagnostics()[e]
            method.classifier = [unit(starts[e][tasks[e].candidates])]
        if not self.project:
            return
        many = [dataclasses.replace(task, seed=member_seed(task, k)) for task in tasks for k in range(self.members)]
        space = CommonSpace(self, many)
        space.classifier = torch.stack([s for s in starts for _ in range(self.members)]).requires_grad_()
        made: Sequence[Pairs | None] = generator.pseudo_pairs(targets) if self.prior_shots else [None] * len(tasks)
        share = tasks[0].shots / (tasks[0].shots + self.prior_shots) if tasks[0].shots else 1.0
        sets = [training_set(task, pseudo, share) for task, pseudo in zip(tasks, made, strict=True)]
        space.train([one for one in sets for _ in range(self.members)])
        for e, (method, task) in enumerate(zip(fitted, tasks, strict=True)):
            own = range(e * self.members, (e + 1) * self.members)
            method.projectors = {m: [space.projector.only(k * M + i) for k in own] for i, m in enumerate(MODALITIES)}
            method.classifier = [unit(space.classifier[k, task.candidates].detach()) for k in own]

    def _starts(self, tasks: Sequence[Task], generator: ClassMeans) -> list[Tensor]:
        """The rows ``[C,d]`` at which each draw's classifier starts."""
        made = generator.of_classes([task.target_classes for task in tasks]).mean(1)
        starts = []
        for task, means in zip(tasks, made, strict=True):
            labelled = task.labelled
            every = torch.arange(len(task.classes), device=task.device)
            items = unit(sum(labelled.means(m, every) for m in MODALITIES))  # type: ignore[arg-type]
            rows = task.class_text if self.start == "text" else unit(task.class_text + 2 * items)
            if self.start == "means":
                rows = rows.clone()
                rows[task.target_classes] = unit(means)
            starts.append(rows)
        return starts


def centre(task: Task, strength: float) -> dict[Modality, Tensor]:
    """``strength`` times the mean of the source classes' means, for each modality ``[d]``."""
    return {m: strength * task.source.means(m, task.source_classes).mean(0) for m in MODALITIES}


def centred(task: Task, at: dict[Modality, Tensor]) -> Task:
    """The task with all of its features moved by the centre, texts of classes as texts, and of unit length again."""

    def moved(pairs: Pairs) -> Pairs:
        return Pairs(unit(pairs.image - at["image"]), unit(pairs.text - at["text"]), pairs.label)

    text = unit(task.class_text - at["text"])
    return dataclasses.replace(task, source=moved(task.source), support=moved(task.support), class_text=text)


def member_seed(task: Task, member: int) -> int:
    """A seed of its own for each member of a draw."""
    return int(torch.randint(2**48, (1,), generator=task.generator(f"flexclip_meta: member {member}")))
