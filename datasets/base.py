"""The contract of a dataset: pairs of a picture and a text, each pair of one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets import instance, kshot, xshot
from xshot_bench.datasets.features import FeatureSet
from xshot_bench.datasets.fetching import Origin
from xshot_bench.datasets.kshot import Sampling
from xshot_bench.datasets.splitting import Part, Protocol, Split


@dataclass(frozen=True)
class Item:
    """One image-text pair: a stable ``id``, its ``text``, and its class ``label`` (one of ``Dataset.classes``)."""

    id: str
    text: str
    label: str


@dataclass(frozen=True)
class DatasetOptions:
    """What the user says of a dataset: the folder it lies in, and whether to go on without its bad items.

    cache: where what was found of its files may be kept.
    """

    root: Path | None = None
    skip_bad_items: bool = False
    cache: Path | None = None


class Dataset(ABC):
    """Image-text pairs with classes. A dataset is a file in this folder, named for it.

    items: the pairs in a fixed order. classes: the class names in a fixed order (the official one, else sorted).
    digest: SHA-256 (hex) of everything that features depend on: ids, texts, labels, picture contents.
    parts: item id -> the part that the dataset's own split puts it in, where it has one.
    halves: variant of ``xshot`` -> its target classes, where the dataset says them; beside ``b`` and ``c``.
    notes: lines the user should read, e.g. how many bad items were left out.
    prompts: the templates that turn a class name into the texts whose mean feature stands for the class.
    protocols: those it has splits for. sampling: how the shots of ``kshot`` are drawn. name: the file's name.
    edition: which of several sets of this name it is, where the user's copy decides that; a part of its splits' names.
    has_features: it comes as features, so no encoder is run (see ``features``).
    picture_of: item -> the first item with the same picture, where several texts share one, so that it is encoded once.
    origin: where its folder comes from, for `run_bench.py fetch`; None where there is nothing to fetch.
    """

    name: ClassVar[str]
    protocols: ClassVar[tuple[Protocol, ...]] = ("xshot", "kshot")
    sampling: ClassVar[Sampling] = "nested"
    prompts: ClassVar[tuple[str, ...]] = ("a photo of a {}.",)
    origin: ClassVar[Origin | None] = None
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    digest: str
    parts: Mapping[str, Part] = {}
    halves: Mapping[str, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()
    edition: str = ""
    has_features: bool = False
    picture_of: Sequence[int] = ()

    @classmethod
    @abstractmethod
    def open(cls, options: DatasetOptions) -> Self:
        """Read the dataset (texts and labels, not yet the pictures' pixels where that can be avoided).

        Raises `InputError` with all problems in one message.
        """

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """The picture of ``items[index]``, mode RGB or RGBA. Called in several threads or processes at once."""

    def features(self) -> FeatureSet:
        """Of a dataset that ``has_features``: its own, float32 as they are; the digest need not be set."""
        raise InputError(f"the dataset {self.name!r} has pictures and texts, no features of its own.")

    def split(self, protocol: Protocol = "xshot", variant: str = "") -> Split:
        """The split of a protocol, named ``variant`` ("" is the default one); `InputError` names those there are."""
        if protocol not in self.protocols:
            raise InputError(
                f"the dataset {self.name!r} has no splits for {protocol!r}. It has: {', '.join(self.protocols)}."
            )
        if variant not in self.variants(protocol):
            known = ", ".join(f"{self.name}/{v}".rstrip("/") for v in self.variants(protocol))
            raise InputError(f"{self.name} has no split {variant!r} for {protocol!r}. There are: {known}.")
        name = f"{self.name}-{self.edition}" if self.edition else self.name
        given = (name, variant, self.labels, self.classes, self.parts)
        if protocol == "kshot":
            return kshot.make_split(*given, sampling=self.sampling)
        if protocol == "instance":
            return instance.make_split(*given)
        return xshot.make_split(*given, target=self.halves.get(variant))

    def variants(self, protocol: Protocol) -> tuple[str, ...]:
        """The names of a protocol's splits; "" is the default one."""
        known = {"xshot": xshot.VARIANTS, "kshot": kshot.VARIANTS, "instance": instance.VARIANTS}[protocol]
        return tuple(dict.fromkeys((*known, *self.halves))) if protocol == "xshot" else known

    @property
    def labels(self) -> dict[str, str]:
        """Item id -> class."""
        return {item.id: item.label for item in self.items}

    def class_prompts(self) -> list[list[str]]:
        """The texts of each class, ``[C][T]``: its name in each of the T templates."""
        return [[template.format(self.in_words(name)) for template in self.prompts] for name in self.classes]

    def in_words(self, name: str) -> str:
        """A class name as it stands in a prompt: its underscores and hyphens are spaces."""
        return name.replace("_", " ").replace("-", " ")
