"""The class-disjoint X-shot split: which classes are source and target, which items train, test and are support.

A class split named "" takes every second class as target (DADN's rule for a half); ``b`` and ``c`` take random halves.
A dataset may name halves of its own.
Each choice has a random stream of its own, named for what is chosen, so a class more moves no other class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from xshot_bench import InputError
from xshot_bench.datasets.splitting import Gallery, Part, Protocol, Roles, Shots, Split, digest_of, shuffled

DRAWS, SHOTS = 10, 7
LEAST_CLASSES = 6  # three a side, so that a validation class leaves two to learn from
LEAST_ITEMS = 4  # of a class: two for training, two for test
VARIANTS = ("", "b", "c")


@dataclass(frozen=True)
class XShotSplit(Split):
    """A class-disjoint X-shot split, as its JSON file says it.

    source, target: class names, disjoint, in the dataset's order. validation: the part of source set aside for
        choosing hyper-parameters.
    train, test: class name -> item ids, disjoint, for every class. The target classes' ``train`` items are the
        pool that support is drawn from; their ``test`` items are the queries at every X and in every draw.
    support: draw -> target class -> item ids in their fixed order: X shots are the first X.
    """

    protocol: ClassVar[Protocol] = "xshot"
    galleries: ClassVar[tuple[Gallery, ...]] = ("test", "train", "all")

    source: tuple[str, ...]
    target: tuple[str, ...]
    validation: tuple[str, ...]
    train: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]
    support: dict[int, dict[str, tuple[str, ...]]]

    @property
    def draws(self) -> tuple[int, ...]:
        return tuple(sorted(self.support))

    @property
    def max_shots(self) -> int:
        """The most shots that every target class has in every draw."""
        return min(len(ids) for draw in self.support.values() for ids in draw.values())

    def roles(self, shots: Shots, draw: int, gallery: Gallery) -> Roles:
        """Queries are the target classes' test items; what is searched is the gallery mode's."""
        support = self.support[draw]
        queries = tuple(i for c in self.target for i in self.test[c])
        searched = {
            "test": queries,
            "train": tuple(i for c in self.target for i in self.train[c] if i not in support[c]),
            "all": tuple(i for c in (*self.target, *self.source) for i in self.test[c]),
        }[gallery]
        return Roles(
            source=tuple(i for c in self.source for i in self.train[c]),
            support=tuple(i for c in self.target for i in support[c][: int(shots)]),
            validation=(),
            image_queries=queries,
            text_queries=queries,
            image_gallery=searched,
            text_gallery=searched,
            source_classes=self.source,
            target_classes=self.target,
            validation_classes=self.validation,
            candidates=(*self.target, *self.source) if gallery == "all" else self.target,
        )


def official_halves(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Target classes of each variant, for classes in an official order that others split by their numbers.

    "" is the 1st, 3rd, 5th … (DADN: unseen where the number from 0 is even), ``odd`` the 2nd, 4th, … (the same rule
    where numbers start from 1), ``last`` the last half.
    """
    return {"": tuple(classes[::2]), "odd": tuple(classes[1::2]), "last": tuple(classes[(len(classes) + 1) // 2 :])}


def make_split(
    name: str,
    variant: str,
    labels: Mapping[str, str],
    classes: Sequence[str],
    parts: Mapping[str, Part] | None = None,
    *,
    target: Sequence[str] | None = None,
) -> XShotSplit:
    """The split of the items ``labels`` (id -> class), always the same for the same items.

    Target classes: half of the items, at least eight if there are as many, are the pool for support, and the rest test
    items. Source classes: a fifth of the items, at least two, are test items. Every fourth source class is for
    validation. There are ten draws of up to seven shots, fewer where the smallest pool is smaller. Where ``parts`` (id
    -> part) marks test items, those are the test items; items that it marks ``val`` are not used. ``target``: the
    target classes, where the variant's rule does not choose them. Raises `InputError` where there are too few classes
    or too few items in one.
    """
    members: dict[str, list[str]] = {c: [] for c in classes}
    parts = parts or {}
    test = {item for item, part in parts.items() if part == "test"}
    for item, label in labels.items():
        if parts.get(item) != "val":
            members[label].append(item)
    small = [f"{c!r} ({len(ids)})" for c, ids in members.items() if len(ids) < LEAST_ITEMS]
    if small:
        raise InputError(f"a class needs at least {LEAST_ITEMS} items for a split; too few have: {', '.join(small)}.")
    if len(classes) < LEAST_CLASSES:
        raise InputError(f"a class-disjoint split needs at least {LEAST_CLASSES} classes, there are {len(classes)}.")

    target = [c for c in classes if c in target] if target else _target(name, variant, classes)
    source = [c for c in classes if c not in target]
    in_order = {c: shuffled(members[c], name, variant, c, "test items") for c in classes}
    if test:
        train = {c: tuple(item for item in in_order[c] if item not in test) for c in classes}
    else:
        train = {c: tuple(in_order[c][: _train_size(len(members[c]), c in target)]) for c in classes}
    bare = [repr(c) for c in classes if not 0 < len(train[c]) < len(members[c])]
    if bare:
        raise InputError(f"every class needs training and test items; not so: {', '.join(bare)}. Mark some of each.")
    shots = min(SHOTS, *(len(train[c]) for c in target))
    content: dict[str, Any] = {
        "name": f"{name}/{variant}" if variant else name,
        "source": tuple(source),
        "target": tuple(target),
        "validation": tuple(source[1::4] if len(source) > 7 else source[1::3]),
        "train": train,
        "test": {c: tuple(item for item in in_order[c] if item not in set(train[c])) for c in classes},
        "support": {
            draw: {c: tuple(shuffled(train[c], name, variant, c, f"draw {draw}")[:shots]) for c in target}
            for draw in range(DRAWS)
        },
    }
    return XShotSplit(digest=digest_of(content), **content)


def check_split(split: XShotSplit, labels: Mapping[str, str], classes: Iterable[str]) -> None:
    """`InputError` unless the split fits these items: known ids in their own class, and nothing used twice."""
    problems = []
    if set(split.source) & set(split.target) or set(split.source) | set(split.target) != set(classes):
        problems.append("source and target are not two halves of the classes")
    if not set(split.validation) < set(split.source):
        problems.append("the validation classes are not among the source classes")
    for c in (*split.source, *split.target):
        train, test = split.train.get(c, ()), split.test.get(c, ())
        if len({*train, *test}) != len(train) + len(test) or not train or not test:
            problems.append(f"class {c!r} has an item twice, or no training or no test item")
        if any(labels.get(item) != c for item in (*train, *test)):
            problems.append(f"class {c!r} has an item that the dataset does not have in it")
    for draw, support in split.support.items():
        for c in split.target:
            ids = support.get(c, ())
            if not ids or len(set(ids)) != len(ids) or not set(ids) <= set(split.train.get(c, ())):
                problems.append(f"the support of class {c!r} in draw {draw} is not drawn from its training items")
    if problems:
        raise InputError(f"the split {split.name} does not fit its dataset: {problems[0]}. {_remedy(split.name)}")


def load_split(path: Path) -> XShotSplit:
    """Read a split file; `InputError` where it is damaged or its digest is not that of its content."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the split file {path} cannot be read: {error.strerror}. {_remedy(path.stem)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise InputError(f"the split file {path} is damaged: {reason}. {_remedy(path.stem)}") from None


def from_json(text: str) -> XShotSplit:
    """The split that ``to_json`` wrote. `ValueError` where the digest is not that of the content."""
    content = json.loads(text)
    said = content.pop("digest")
    content = {
        "name": str(content["name"]),
        **{key: tuple(map(str, content[key])) for key in ("source", "target", "validation")},
        **{key: {c: tuple(map(str, ids)) for c, ids in content[key].items()} for key in ("train", "test")},
        "support": {
            int(draw): {c: tuple(map(str, ids)) for c, ids in classes.items()}
            for draw, classes in content["support"].items()
        },
    }
    if digest_of(content) != said:
        raise ValueError("its content does not have the digest that it states")
    return XShotSplit(digest=said, **content)


def _target(name: str, variant: str, classes: Sequence[str]) -> list[str]:
    if not variant:
        return list(classes[::2])
    chosen = set(shuffled(classes, name, variant, "target classes")[: len(classes) // 2])
    return [c for c in classes if c in chosen]


def _train_size(items: int, is_target: bool) -> int:
    return max(min(8, items - 2), items // 2) if is_target else items - max(2, items // 5)


def _remedy(name: str) -> str:
    return f"Make it again with `run_bench.py splits {name.partition('/')[0].partition('-')[0]}`."
