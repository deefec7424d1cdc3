"""The contract of a method; ``task.py`` has all that a method may see.

To add a method, write one file in this folder (or anywhere, and pass it with ``--plugin``)::

    from torch import Tensor

    from xshot_bench.methods.base import EmbeddingMethod, Modality, Task

    class Centred(EmbeddingMethod):
        '''Zero-shot cosine after removing each modality's mean over the source items.'''

        strength: float = 0.5                             # a parameter: typed, with a default
        needs = frozenset({"joint", "source"})            # what a task must have
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
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, dataclass_transform

from torch import Tensor

from xshot_bench.methods import state
from xshot_bench.methods.task import MODALITIES, Modality, Pairs, Task, Towers

__all__ = [
    "MODALITIES",
    "Declined",
    "EmbeddingMethod",
    "Method",
    "Modality",
    "Need",
    "PairMethod",
    "Pairs",
    "PosteriorMethod",
    "Raw",
    "Resources",
    "Scoring",
    "Task",
    "Towers",
]

Raw = Tensor | tuple[str, ...]  # pixels [n,3,h,w], or texts: what a tower reads
Scoring = Literal["cosine", "posterior", "pairs"]
Need = Literal["joint", "class_text", "tokens", "source", "towers", "pixels"]


class Declined(Exception):
    """A method cannot take this task, for the reason given; the table shows it as declined, not as failed."""


@dataclass(frozen=True)
class Resources:
    """What one cell of a method takes of a machine. Only the executor ``ray`` reads it, to place cells.

    num_cpus: cores; a cell computes with one thread, so more are for methods that start processes of their own.
    num_gpus: may be a fraction, 0.25 where four cells fit on one; counts with ``--device cuda`` alone.
    memory: bytes, 0 for no claim.
    """

    num_cpus: float = 1
    num_gpus: float = 1
    memory: int = 0


@dataclass_transform(kw_only_default=True)
class Method(ABC):
    """The base of all methods. Derive from `EmbeddingMethod`, `PosteriorMethod` or `PairMethod` instead.

    Annotated class attributes with a default are the method's parameters. The harness makes an instance with
    parameters set, calls ``fit`` once, then asks for embeddings, logits or scores of unlabelled items, a block of
    rows at a time: a row's result may not depend on the other rows of its block.

    needs: what the task must have, else the harness declines it with the reason: ``joint`` (images and texts in one
        space), ``class_text`` (a text feature for each class), ``tokens`` (spatial tokens of the images), ``source``
        (labelled items of source classes, which the protocol ``kshot`` has not), ``towers`` (the encoder itself, with
        gradients, and the items' texts), ``pixels`` (the items' prepared pictures, for the image tower).
    ablations: switch name -> parameter override; ``flexclip:nogen`` runs one, ``flexclip:nogen+nofusion`` two.
    components: the switches that each take one component out, of different parameters; ``--ablate`` runs the method
        without each, with each alone and with none, and then the other switches.
    search: parameter -> the values that tuning may choose from, the default among them (benchmarks/tune.py). Every
        method gets the same number of trials, so put in what matters most.
    stack: True if ``fit_many`` trains several draws faster together than one by one on a GPU.
    resources: what a cell takes of a machine of a Ray cluster, e.g. ``Resources(num_gpus=0.25, memory=4 << 30)``.

    Keep what is learnt as tensors, numbers, strings, and tuples, lists, dicts and objects of your own classes made of
    these: then ``save`` and ``load`` work.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"joint", "class_text"})
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    components: ClassVar[tuple[str, ...]] = ()
    search: ClassVar[Mapping[str, Sequence[Any]]] = {}
    stack: ClassVar[bool] = False
    resources: ClassVar[Resources] = Resources()

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

    @property
    def required(self) -> frozenset[Need]:
        """What is needed with the parameters as they are: ``needs``, unless a method overrides this."""
        return self.needs

    def encode(self, x: Tensor, modality: Modality, raw: Raw | None, task: Task) -> Tensor:
        """The features ``[n,d]`` of unlabelled items, of unit length where the task is joint, before they are scored.

        A method that adapts the towers overrides this. x ``[n,d]``: the encoder's own features, which are the default.
        raw: n texts, or pixels ``[n,3,h,w]``; None where the method does not need them. The towers are the task's: a
        method keeps what it has learnt, not the towers, so one that was loaded encodes with those of the same encoder.
        """
        return x

    def encode_classes(self, task: Task) -> Tensor:
        """The features ``[C,d]`` of the class prompts, as ``encode`` has those of texts."""
        return task.class_text

    def diagnostics(self) -> dict[str, float]:
        """What training looked like, as named numbers; stored with the result."""
        return {}

    def save(self, path: Path) -> None:
        """Write the method with what it has learnt to a safetensors file; TypeError for what state.py cannot keep."""
        state.save(self, path)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """The method that ``save`` wrote; `InputError` where the file is another thing."""
        return state.load(cls, path, device)

    def parameters(self) -> dict[str, Any]:
        """The parameters by name, in the order of their declaration."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


def require(method: Method, task: Task) -> None:
    """Raise `Declined` unless the task has what the method needs."""
    needs = method.required
    if "joint" in needs and not task.joint:
        widths = " and ".join(f"{task.labelled[m].shape[1]}-d {m}s" for m in MODALITIES)
        raise Declined(f"needs images and texts in one space; these features are {widths} of separate spaces")
    if "class_text" in needs and not task.class_text.shape[1]:
        raise Declined("needs text features of the classes; these features come without")
    if "tokens" in needs and task.labelled.tokens is None:
        raise Declined("needs spatial tokens of the images; these features come without")
    if "source" in needs and not len(task.source):
        raise Declined("needs labelled items of source classes; here there are none")
    if "towers" in needs and task.towers is None:
        raise Declined("needs gradients in the encoder's towers; these features come without, or from a file")
    if "pixels" in needs and task.labelled.pixels is None:
        raise Declined("needs the pictures themselves; these features come without")


class EmbeddingMethod(Method):
    """A method that maps both modalities into one space; items are compared by cosine."""

    @property
    def scoring(self) -> Scoring:
        return "cosine"

    @abstractmethod
    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """Features ``x [n,d]`` to embeddings ``[n,e]``; rows need not be of unit length."""


class PosteriorMethod(Method):
    """A method that classifies items of either modality; items are compared by the dot product of class posteriors.

    The harness turns logits into posteriors, by one calibration rule for all methods (benchmarks/scoring.py).
    """

    @property
    def scoring(self) -> Scoring:
        return "posterior"

    @abstractmethod
    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        """Features ``x [n,d]`` to class logits ``[n, len(task.candidates)]``, at any scale."""


class PairMethod(Method):
    """A method whose score depends on the pair, not on two embeddings."""

    @property
    def scoring(self) -> Scoring:
        return "pairs"

    @abstractmethod
    def score(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        """Scores ``[n,m]`` of images ``[n,d]`` against texts ``[m,d]``; larger is more similar.

        tokens: the images' spatial tokens ``[n,P,d]`` (unit rows) for a method that needs them, else None.
        """
