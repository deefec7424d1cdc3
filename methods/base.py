"""The contract of a method, and all that a method may see.

To add a method, write one file in this folder (or anywhere, and pass it with ``--plugin``)::

    from torch import Tensor

    from xshot_bench.methods.base import EmbeddingMethod, Modality, Task

    class Centred(EmbeddingMethod):
        '''Zero-shot cosine after removing each modality's mean over the source items.'''

        strength: float = 0.5                             # a parameter: typed, with a default
        ablations = {"raw": {"strength": 0.0}}            # a switch: asked for as  centred:raw

        def fit(self, task: Task) -> None:
            self.mean = {m: task.source[m].mean(0) for m in ("image", "text")}

        def embed(self, x: Tensor, modality: Modality) -> Tensor:
            return x - self.strength * self.mean[modality]

The method's name is the file's name. Only what is used is imported, so a method's dependencies cost nobody else.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, dataclass_transform

import torch
from torch import Tensor

Modality = Literal["image", "text"]
Scoring = Literal["cosine", "posterior", "pairs"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")


class Declined(Exception):
    """A method cannot take this task, for the reason given; the table shows it as declined, not as failed."""


@dataclass(frozen=True)
class Pairs:
    """Labelled image-text pairs: ``image [n,d_i]`` and ``text [n,d_t]`` with unit rows (float32), ``label [n]``.

    Labels index ``Task.classes``. ``pairs["image"]`` is ``pairs.image``.
    """

    image: Tensor
    text: Tensor
    label: Tensor

    def __getitem__(self, modality: Modality) -> Tensor:
        return self.image if modality == "image" else self.text

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, index: Tensor) -> Pairs:
        """The pairs at ``index`` (positions ``[k]`` or a mask ``[n]``), in that order."""
        return Pairs(self.image[index], self.text[index], self.label[index])

    def of(self, classes: Tensor) -> Pairs:
        """The pairs whose class is among ``classes [k]``."""
        return self.rows(torch.isin(self.label, classes))

    def means(self, modality: Modality, classes: Tensor) -> Tensor:
        """The mean feature of each of ``classes [k]``, ``[k,d]``; zero for a class without pairs."""
        member = (classes[:, None] == self.label).float()
        return member @ self[modality] / member.sum(1, keepdim=True).clamp_min(1)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(*(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("image", "text", "label")))


@dataclass(frozen=True)
class Task:
    """One episode as a method sees it. The labels of test items are not in it and cannot be reached from it.

    source: labelled training items of the source classes.
    support: X = ``shots`` labelled pairs of every target class; empty at X = 0.
    classes: the names of all C classes; ``class_text [C,d_t]`` the unit text features of their prompts.
    source_classes, target_classes: class indices, disjoint.
    validation_classes: the part of ``source_classes`` set aside for choosing hyper-parameters.
    candidates: the classes that gallery items can have, in the order of a posterior's columns:
        the target classes, and the source classes too in the generalised gallery.
    seed: the draw. Take randomness from ``generator`` alone, never from a global state.
    scale: the encoder's logit scale, exp(t).
    """

    source: Pairs
    support: Pairs
    classes: tuple[str, ...]
    class_text: Tensor
    source_classes: Tensor
    target_classes: Tensor
    validation_classes: Tensor
    candidates: Tensor
    shots: int
    seed: int
    scale: float

    @property
    def device(self) -> torch.device:
        return self.class_text.device

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator that depends on the draw and on ``purpose`` alone: the same at every X, on every device."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7]))

    def rehearsal(self, draw: int) -> tuple[Task, Pairs]:
        """The same game one level down, for choosing hyper-parameters without touching the target side.

        The validation classes play the target and the other source classes the source. Support pairs are drawn
        at random (max(X, 1) a class, but at least one item of a class is held out); returned beside the task are
        the held-out pairs of the validation classes.
        """
        order = torch.randperm(len(self.source), generator=self.generator(f"rehearsal {draw}")).to(self.device)
        shuffled = self.source.rows(order)
        chosen: list[Tensor] = []
        for c in self.validation_classes:
            members = torch.nonzero(shuffled.label == c).flatten()
            chosen.append(members[: min(max(self.shots, 1), len(members) - 1)])
        support = torch.cat(chosen)
        held_out = torch.isin(shuffled.label, self.validation_classes)
        held_out[support] = False
        rest = self.source_classes[~torch.isin(self.source_classes, self.validation_classes)]
        task = dataclasses.replace(
            self,
            source=self.source.of(rest),
            support=shuffled.rows(support if self.shots else support[:0]),
            source_classes=rest,
            target_classes=self.validation_classes,
            validation_classes=rest[: len(rest) // 4],
            candidates=self.validation_classes,
            seed=int.from_bytes(hashlib.sha256(f"{self.seed}/rehearsal {draw}".encode()).digest()[:7]),
        )
        return task, shuffled.rows(held_out)


@dataclass_transform(kw_only_default=True)
class Method(ABC):
    """The base of all methods. Derive from `EmbeddingMethod`, `PosteriorMethod` or `PairMethod` instead.

    Annotated class attributes with a default are the method's parameters. The harness makes an instance with
    parameters set, calls ``fit`` once, then asks for embeddings, logits or scores of unlabelled items, a block of
    rows at a time: a row's result may not depend on the other rows of its block.

    ablations: switch name -> parameter override; ``flexclip:nogen`` runs one, ``flexclip:nogen+nofusion`` two.
    components: the switches that each take one component out, of different parameters; ``--ablate`` runs the method
        without each, with each alone and with none, and then the other switches.
    stack: True if ``fit_many`` trains several draws faster together than one by one on a GPU.
    """

    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    components: ClassVar[tuple[str, ...]] = ()
    stack: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    @property
    @abstractmethod
    def scoring(self) -> Scoring:
        """How query and gallery are compared: set by the three bases below."""

    @abstractmethod
    def fit(self, task: Task) -> None:
        """Learn from the task. Raise `Declined` with a reason where the method does not apply."""

    def fit_many(self, tasks: Sequence[Task]) -> list[Self]:
        """Fitted copies of this method, one for each task (draws of one setting: same shapes, other items).

        Override to train them at once; nothing fitted may be shared between tasks, and the result must agree
        with ``fit`` on each task to float tolerance.
        """
        fitted = [copy.copy(self) for _ in tasks]
        for method, task in zip(fitted, tasks, strict=True):
            method.fit(task)
        return fitted

    def diagnostics(self) -> dict[str, float]:
        """What training looked like, as named numbers; stored with the result."""
        return {}

    def parameters(self) -> dict[str, Any]:
        """The parameters by name, in the order of their declaration."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


class EmbeddingMethod(Method):
    """A method that maps both modalities into one space; items are compared by cosine."""

    @property
    def scoring(self) -> Scoring:
        return "cosine"

    @abstractmethod
    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """Features ``x [n,d]`` (unit rows) to embeddings ``[n,e]``; rows need not be of unit length."""


class PosteriorMethod(Method):
    """A method that classifies items of either modality; items are compared by the dot product of class posteriors.

    The harness turns logits into posteriors, by one calibration rule for all methods (benchmarks/scoring.py).
    """

    @property
    def scoring(self) -> Scoring:
        return "posterior"

    @abstractmethod
    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        """Features ``x [n,d]`` (unit rows) to class logits ``[n, len(task.candidates)]``, at any scale."""


class PairMethod(Method):
    """A method whose score depends on the pair, not on two embeddings."""

    @property
    def scoring(self) -> Scoring:
        return "pairs"

    @abstractmethod
    def score(self, image: Tensor, text: Tensor) -> Tensor:
        """Scores ``[n,m]`` of images ``[n,d]`` against texts ``[m,d]``; larger is more similar."""
