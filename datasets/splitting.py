"""Splits: which classes are source and target, which items train, test and serve as support, in what order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """A class-disjoint X-shot split, as its JSON file says it.

    name: e.g. ``openmoji`` or ``openmoji/b``. digest: SHA-256 (hex) of the file's canonical content.
    source, target: class names, disjoint, in the dataset's order. validation: the part of source set aside for
        choosing hyper-parameters.
    train, test: class name -> item ids, disjoint, for every class. The target classes' ``train`` items are the
        pool that support is drawn from; their ``test`` items are the queries at every X and in every draw.
    support: draw -> target class -> item ids in their fixed order: X shots are the first X.
    """

    name: str
    digest: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    validation: tuple[str, ...]
    train: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]
    support: dict[int, dict[str, tuple[str, ...]]]

    @property
    def max_shots(self) -> int:
        """The most shots that every target class has in every draw."""
        return min(len(ids) for draw in self.support.values() for ids in draw.values())
