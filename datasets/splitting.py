"""What a split is: it says who plays what in each episode, and it has a digest. Each protocol has its own kind."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

Protocol = Literal["xshot", "kshot", "instance"]
Gallery = Literal["test", "train", "all"]
Shots = int | Literal["all"]
Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Roles:
    """Who plays what in one episode: item ids in their order, and class names.

    source, support: the labelled items of source and target classes. validation: labelled items for choosing
        hyper-parameters. image_queries, text_queries: the test items whose image (text) asks; image_gallery,
        text_gallery: those whose image (text) is searched.
    source_classes, target_classes: disjoint. validation_classes: a part of the source classes.
    candidates: the classes that gallery items can have.
    """

    source: tuple[str, ...]
    support: tuple[str, ...]
    validation: tuple[str, ...]
    image_queries: tuple[str, ...]
    text_queries: tuple[str, ...]
    image_gallery: tuple[str, ...]
    text_gallery: tuple[str, ...]
    source_classes: tuple[str, ...]
    target_classes: tuple[str, ...]
    validation_classes: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Split(ABC):
    """A split of a dataset for one protocol. ``name``: e.g. ``openmoji/b``; ``digest``: SHA-256 (hex) of its content.

    draws: the numbers of its support draws, in the order in which they are used.
    max_shots: the most labelled items that every target class can be given; "all" is allowed where ``takes_all``.
    """

    protocol: ClassVar[Protocol]
    galleries: ClassVar[tuple[Gallery, ...]] = ("test",)
    takes_all: ClassVar[bool] = False

    name: str
    digest: str

    @property
    @abstractmethod
    def draws(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def max_shots(self) -> int: ...

    @abstractmethod
    def roles(self, shots: Shots, draw: int, gallery: Gallery) -> Roles:
        """Who plays what; the arguments are among those that the split has."""

    def remarks(self, shots: Sequence[Shots]) -> tuple[str, ...]:
        """What the user should know of these shots, a line each."""
        return ()


def to_json(split: Split) -> str:
    """A split as its file has it: a line for each class, so that differences can be read."""
    fields = {key: _with_text_keys(value) for key, value in asdict(split).items()}
    lines = []
    for key, value in fields.items():
        if not isinstance(value, dict):
            lines.append(f"{_dump(key)}: {_dump(value)}")
            continue
        inner = []
        for name, part in value.items():
            rows = [f"   {_dump(c)}: {_dump(ids)}" for c, ids in part.items()] if isinstance(part, dict) else []
            inner.append(f"  {_dump(name)}: " + ("{\n" + ",\n".join(rows) + "\n  }" if rows else _dump(part)))
        lines.append(f"{_dump(key)}: {{\n" + ",\n".join(inner) + "\n }")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def write_split(path: Path, split: Split) -> None:
    """Write a split file."""
    path.write_text(to_json(split), encoding="utf-8")


def digest_of(content: Mapping[str, Any], *, ordered: bool = False) -> str:
    """SHA-256 (hex) of a split's content, whatever the layout of its file; ``ordered``: the order of classes counts."""
    if ordered:
        content = {key: list(value.items()) if isinstance(value, dict) else value for key, value in content.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def shuffled(values: Sequence[str], *axes: str) -> list[str]:
    """The values in an order that depends on the named axes alone."""
    seed = int.from_bytes(hashlib.sha256("\0".join(axes).encode()).digest())
    order = np.random.default_rng(seed).permutation(len(values))
    return [values[i] for i in order]


def _with_text_keys(value: Any) -> Any:
    return {str(key): part for key, part in value.items()} if isinstance(value, dict) else value


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
