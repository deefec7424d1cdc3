"""CLIP-LoRA: low-rank updates inside of the towers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xshot_bench.methods._live import Batch, batches, descend, towers_of
from xshot_bench.methods._training import unit
from xshot_bench.methods.base import (
    MODALITIES,
    Declined,
    EmbeddingMethod,
    Modality,
    Need,
    PosteriorMethod,
    Raw,
    Scoring,
    Task,
    Towers,
)
from xshot_bench.methods.clip_lora.low_rank import Updates, changed, draw_kept, updates_of

AT_ONCE = 64  # items encoded together


class ClipLora(EmbeddingMethod, PosteriorMethod):
    """Low-rank updates of the attention's q, k and v in every layer (Zanella & Ben Ayed, CVPR Workshops 2024).

        W ← W + (alpha/√rank)·B·A      A [rank,in] Kaiming-uniform, B [out,rank] at first 0, so it starts as zero-shot

    minimises the cross-entropy of images by the prompts' features, both through the updated towers. From the paper's
    code: alpha 1, the scale, dropout .25 at A's input, AdamW with decay .01 at a cosine rate, one template.

    Ours: by default the text tower alone is updated, and images are the cached features, for a picture costs far more
    than a short text on a CPU; ``both`` is the paper's, on prepared pictures without augmentation, and declined where
    the image tower has no attention (lite0-minilm's is convolutional). Dropout's mask is drawn once a step, not for
    each token. The paper takes 500 steps a shot at rank 2 and rate 2e-4; here they are few, and both are higher. It
    learns from all labelled items, source classes too, at X = 0 as well; a step takes some classes, with one item of
    each where that has to pass a tower.
    ``train_on = both`` learns from the items' texts as from images. Items are compared by ``cosine``, as the updates
    serve any text, or by class ``posterior``.

    at_once: classes a step.
    """

    adapt: Literal["text", "image", "both"] = "text"
    rank: int = 8
    alpha: float = 1.0
    dropout: float = 0.25
    train_on: Literal["both", "image"] = "both"
    score_by: Literal["cosine", "posterior"] = "cosine"
    steps: int = 30
    at_once: int = 16
    rate: float = 1e-2
    decay: float = 0.01

    needs: ClassVar = frozenset({"joint", "class_text", "towers"})
    ablations: ClassVar = {
        "both": {"adapt": "both"},
        "image": {"train_on": "image"},
        "posterior": {"score_by": "posterior"},
        "untrained": {"steps": 0},
    }
    search: ClassVar[Mapping[str, Sequence[Any]]] = {
        "rate": (1e-3, 3e-3, 1e-2),
        "train_on": ("both", "image"),
        "rank": (2, 8),
    }

    @property
    def scoring(self) -> Scoring:
        return self.score_by

    @property
    def required(self) -> frozenset[Need]:
        return self.needs if self.adapt == "text" else self.needs | {"pixels"}

    def fit(self, task: Task) -> None:
        towers, labelled = towers_of(task), task.labelled
        if not len(labelled):
            raise Declined("needs labelled items to learn from; there are none")
        generator = task.generator("clip_lora: first updates")
        adapted = MODALITIES if self.adapt == "both" else (self.adapt,)
        self.updates: dict[Modality, Updates] = {}
        for modality in adapted:
            self.updates[modality] = updates_of(_tower(towers, modality), self.rank, generator)
            if not self.updates[modality]:
                raise Declined(f"the {modality} tower has no attention whose weights could be updated")
        learnt = [part for found in self.updates.values() for pair in found.values() for part in pair]
        for part in learnt:
            part.requires_grad_()

        def losses() -> Iterator[Tensor]:
            drawn = task.generator("clip_lora: batches")
            for part in batches(labelled.label, self.steps, self.at_once, drawn):
                yield self._loss(task, part, drawn)

        self.loss = descend(learnt, self.rate, self.decay, self.steps, losses)
        for part in learnt:
            part.requires_grad_(False)
        with torch.no_grad():
            self.prompts = self.encode_classes(task)[task.candidates]

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.prompts.T

    @torch.no_grad()
    def encode(self, x: Tensor, modality: Modality, raw: Raw | None, task: Task) -> Tensor:
        if modality not in self.updates or raw is None:
            return x
        tower = _tower(towers_of(task), modality)
        weights = changed(tower, self.updates[modality], self._scale)
        order = range(len(raw)) if isinstance(raw, Tensor) else sorted(range(len(raw)), key=lambda i: len(raw[i]))
        found = torch.empty_like(x)
        for rows in torch.tensor(list(order)).split(AT_ONCE):
            some = raw[rows] if isinstance(raw, Tensor) else tuple(raw[i] for i in rows.tolist())
            found[rows.to(x.device)] = unit(functional_call(tower, weights, (some,))).to(x)
        return found

    @torch.no_grad()
    def encode_classes(self, task: Task) -> Tensor:
        """The mean over the templates, as the encoder's own class texts are made."""
        names, templates = towers_of(task).names, towers_of(task).templates
        each = [
            self.encode(task.class_text, "text", tuple(map(template.format, names)), task) for template in templates
        ]
        return unit(torch.stack(each).mean(0)) if "text" in self.updates else task.class_text

    def diagnostics(self) -> dict[str, float]:
        return {"last loss": self.loss}

    @property
    def _scale(self) -> float:
        return self.alpha / self.rank**0.5

    def _loss(self, task: Task, part: Batch, generator: torch.Generator) -> Tensor:
        towers = towers_of(task)
        weights = {
            modality: changed(_tower(towers, modality), found, self._scale, draw_kept(found, self.dropout, generator))
            for modality, found in self.updates.items()
        }
        prompts = [towers.templates[0].format(towers.names[c]) for c in part.classes.tolist()]
        class_text = unit(functional_call(towers.text, weights.get("text", {}), (prompts,))).to(task.class_text)
        losses, few = [], part.one_of_each(generator)
        for modality in MODALITIES[:1] if self.train_on == "image" else MODALITIES:
            of = few if modality in self.updates else part
            x = task.labelled[modality][of.row]
            if modality in self.updates:
                raw = task.labelled.pixels if modality == "image" else task.labelled.texts
                if raw is not None:
                    given = (raw[of.row].read(),)
                    x = unit(functional_call(_tower(towers, modality), weights[modality], given)).to(x)
            losses.append(of.entropy(task.scale * x @ class_text.T))
        return torch.stack(losses).mean()


def _tower(towers: Towers, modality: Modality) -> nn.Module:
    return towers.image if modality == "image" else towers.text
