"""What a method may see: labelled pairs, and the task they make up. No label of a test item is in it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")


@dataclass(frozen=True)
class Texts:
    """The texts of n items."""

    strings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.strings)

    def __getitem__(self, index: Tensor) -> Texts:
        """The texts at positions ``[k]`` or under a mask ``[n]``."""
        return Texts(tuple(self.strings[i] for i in torch.arange(len(self))[index.cpu()].tolist()))

    def __add__(self, other: Texts) -> Texts:
        return Texts(self.strings + other.strings)

    def read(self) -> tuple[str, ...]:
        return self.strings


@dataclass(frozen=True)
class Pixels:
    """The pictures of n items as the encoder prepares them: the rows ``[n]`` of a memory-mapped array ``[N,3,h,w]``."""

    stored: np.ndarray
    row: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: Tensor) -> Pixels:
        """The pictures at positions ``[k]`` or under a mask ``[n]``; nothing is read yet."""
        return Pixels(self.stored, self.row[index.cpu()])

    def __add__(self, other: Pixels) -> Pixels:
        return Pixels(self.stored, torch.cat([self.row, other.row]))

    def read(self) -> Tensor:
        """Bytes ``[n,3,h,w]``, read from disk."""
        return torch.from_numpy(self.stored[self.row.numpy()])


@dataclass(frozen=True)
class Towers:
    """The encoder's frozen towers, for methods that learn inside of them; gradients pass through.

    text: a module; ``text(texts)`` gives features ``[n,d]``, not normalised, and ``text(texts, context)`` those with
        learnt token embeddings ``[M,w]`` or ``[n,M,w]`` before each text's words. image: a module; ``image(pixels)``
        gives features ``[n,d]``. Their weights stay; replace some for a call with ``torch.func.functional_call``.
    vectors: the token embeddings of a text's words, ``[M,w]``.
    names: the classes' names in words. templates: the prompts, with ``{}`` for a name; a class text is their mean.
    """

    text: nn.Module
    image: nn.Module
    vectors: Callable[[str], Tensor]
    names: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Labelled image-text pairs: ``image [n,d_i]`` and ``text [n,d_t]`` (float32), ``label [n]``.

    Rows are of unit length where the task is ``joint``, else as the dataset's file has them. Labels index
    ``Task.classes``. ``pairs["image"]`` is ``pairs.image``.
    tokens ``[n,P,d]``: the images' spatial tokens, unit rows, where the method needs them. views ``[n,V,d]``: features
    of V views of each image, unit rows, where there are any.
    texts, pixels: what the towers read of the items; where the method needs ``towers``, and ``pixels``.
    """

    image: Tensor
    text: Tensor
    label: Tensor
    tokens: Tensor | None = None
    views: Tensor | None = None
    texts: Texts | None = None
    pixels: Pixels | None = None

    def __getitem__(self, modality: Modality) -> Tensor:
        return self.image if modality == "image" else self.text

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, index: Tensor) -> Pairs:
        """The pairs at ``index`` (positions ``[k]`` or a mask ``[n]``), in that order."""
        return Pairs(*(None if part is None else part[index] for part in self._parts()))  # type: ignore[arg-type]

    def of(self, classes: Tensor) -> Pairs:
        """The pairs whose class is among ``classes [k]``."""
        return self.rows(torch.isin(self.label, classes))

    def means(self, modality: Modality, classes: Tensor) -> Tensor:
        """The mean feature of each of ``classes [k]``, ``[k,d]``; zero for a class without pairs."""
        member = (classes[:, None] == self.label).to(self[modality].dtype)
        return member @ self[modality] / member.sum(1, keepdim=True).clamp_min(1)

    def __add__(self, other: Pairs) -> Pairs:
        """These pairs and then the others; of what is optional, what both have."""
        both = zip(self._parts(), other._parts(), strict=True)
        return Pairs(*(None if a is None or b is None else _joined(a, b) for a, b in both))  # type: ignore[arg-type]

    def _parts(self) -> Iterator[Any]:
        return (getattr(self, field.name) for field in dataclasses.fields(self))


@dataclass(frozen=True)
class Task:
    """One episode as a method sees it. The labels of test items are not in it and cannot be reached from it.

    source: labelled training items of the source classes; there are none in the protocol ``kshot``.
    support: X = ``shots`` labelled pairs of every target class; empty at X = 0. Where classes have unequal numbers, X
        is the least of them.
    validation: labelled pairs for choosing hyper-parameters, in ``kshot`` where the dataset has such; else empty.
    classes: the names of all C classes; ``class_text [C,d_t]`` the unit text features of their prompts, ``[C,0]``
        where there are none (a method that needs them says so in ``needs``).
    source_classes, target_classes: class indices, disjoint.
    validation_classes: the part of ``source_classes`` set aside for choosing hyper-parameters.
    candidates: the classes that gallery items can have, in the order of a posterior's columns:
        the target classes, and the source classes too in the generalised gallery.
    seed: the draw. Take randomness from ``generator`` alone, never from a global state.
    scale: the encoder's logit scale, exp(t).
    joint: images, texts and class texts are in one space, as CLIP's are.
    towers: the encoder's, where the method needs them and there are any.
    """

    source: Pairs
    support: Pairs
    validation: Pairs
    classes: tuple[str, ...]
    class_text: Tensor
    source_classes: Tensor
    target_classes: Tensor
    validation_classes: Tensor
    candidates: Tensor
    shots: int
    seed: int
    scale: float
    joint: bool = True
    towers: Towers | None = None

    @property
    def labelled(self) -> Pairs:
        """All items to learn from: source and support."""
        return self.source + self.support

    @property
    def device(self) -> torch.device:
        return self.class_text.device

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator that depends on the draw and on ``purpose`` alone: the same at every X, on every device."""
        return torch.Generator().manual_seed(_seed(f"{self.seed}/{purpose}"))

    def rehearsals(self, count: int) -> list[tuple[Task, Pairs]]:
        """Up to ``count`` tasks to choose hyper-parameters on, each with the held-out pairs to be judged by.

        With a source side they are the same game one level down (see ``rehearsal``). Without one, there is one: this
        task, judged by ``validation``; where that is empty, each holds out a fifth of the support, a pair or more of
        every class with at least two. There are none where no class has two.
        """
        if len(self.validation_classes):
            return [self.rehearsal(draw) for draw in range(count)]
        if len(self.validation):
            none = self.validation.rows(self.validation.label[:0])
            return [(dataclasses.replace(self, validation=none), self.validation)]
        return [fold for draw in range(count) if (fold := self._fold(draw))]

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
            seed=_seed(f"{self.seed}/rehearsal {draw}"),
        )
        return task, shuffled.rows(held_out)

    def _fold(self, draw: int) -> tuple[Task, Pairs] | None:
        """The task without a fifth of its support, and that fifth; None where no class has a pair to spare."""
        order = torch.randperm(len(self.support), generator=self.generator(f"fold {draw}")).to(self.device)
        shuffled = self.support.rows(order)
        held_out = torch.zeros(len(shuffled), dtype=torch.bool, device=self.device)
        for c in self.target_classes:
            members = torch.nonzero(shuffled.label == c).flatten()
            held_out[members[: (len(members) + 3) // 5 if len(members) > 1 else 0]] = True
        if not held_out.any():
            return None
        kept = shuffled.rows(~held_out)
        return dataclasses.replace(self, support=kept), shuffled.rows(held_out)


def _joined(a: Any, b: Any) -> Any:
    return torch.cat([a, b]) if isinstance(a, Tensor) else a + b


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
