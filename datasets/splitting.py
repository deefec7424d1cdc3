"""Splits: which classes are source and target, which items train, test and serve as support, in what order.

A class split named "" takes every second class as target (DADN's rule for a half); ``b`` and ``c`` take random halves.
Each choice has a random stream of its own, named for what is chosen, so a class more moves no other class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xshot_bench import InputError

DRAWS, SHOTS = 10, 7
LEAST_CLASSES = 6  # three a side, so that a validation class leaves two to learn from
LEAST_ITEMS = 4  # of a class: two for training, two for test


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


def make_split(
    name: str, variant: str, labels: dict[str, str], classes: Sequence[str], test: frozenset[str] = frozenset()
) -> Split:
    """The split of the items ``labels`` (id -> class), always the same for the same items.

    Target classes: half of the items, at least eight if there are as many, are the pool for support, and the rest test
    items. Source classes: a fifth of the items, at least two, are test items. Every fourth source class is for
    validation. There are ten draws of up to seven shots, fewer where the smallest pool is smaller. Where ``test`` says
    which items are test items, it is so. Raises `InputError` where there are too few classes or too few items in one.
    """
    members: dict[str, list[str]] = {c: [] for c in classes}
    for item, label in labels.items():
        members[label].append(item)
    small = [f"{c!r} ({len(ids)})" for c, ids in members.items() if len(ids) < LEAST_ITEMS]
    if small:
        raise InputError(f"a class needs at least {LEAST_ITEMS} items for a split; too few have: {', '.join(small)}.")
    if len(classes) < LEAST_CLASSES:
        raise InputError(f"a class-disjoint split needs at least {LEAST_CLASSES} classes, there are {len(classes)}.")

    target = _target(name, variant, classes)
    source = [c for c in classes if c not in target]
    shuffled = {c: _shuffled(members[c], name, variant, c, "test items") for c in classes}
    if test:
        train = {c: tuple(item for item in shuffled[c] if item not in test) for c in classes}
    else:
        train = {c: tuple(shuffled[c][: _train_size(len(members[c]), c in target)]) for c in classes}
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
        "test": {c: tuple(item for item in shuffled[c] if item not in set(train[c])) for c in classes},
        "support": {
            draw: {c: tuple(_shuffled(train[c], name, variant, c, f"draw {draw}")[:shots]) for c in target}
            for draw in range(DRAWS)
        },
    }
    return Split(digest=digest_of(content), **content)


def check_split(split: Split, labels: dict[str, str], classes: Iterable[str]) -> None:
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


def write_split(path: Path, split: Split) -> None:
    """Write a split file."""
    path.write_text(to_json(split), encoding="utf-8")


def load_split(path: Path) -> Split:
    """Read a split file; `InputError` where it is damaged or its digest is not that of its content."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the split file {path} cannot be read: {error.strerror}. {_remedy(path.stem)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise InputError(f"the split file {path} is damaged: {reason}. {_remedy(path.stem)}") from None


def to_json(split: Split) -> str:
    """A split as its file has it: a line for each class, so that differences can be read."""
    fields = asdict(split) | {"support": {str(draw): support for draw, support in split.support.items()}}
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


def from_json(text: str) -> Split:
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
    return Split(digest=said, **content)


def digest_of(content: dict[str, Any]) -> str:
    """SHA-256 (hex) of a split's content, whatever the layout of its file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _target(name: str, variant: str, classes: Sequence[str]) -> list[str]:
    if not variant:
        return list(classes[::2])
    chosen = set(_shuffled(classes, name, variant, "target classes")[: len(classes) // 2])
    return [c for c in classes if c in chosen]


def _train_size(items: int, is_target: bool) -> int:
    return max(min(8, items - 2), items // 2) if is_target else items - max(2, items // 5)


def _shuffled(values: Sequence[str], *axes: str) -> list[str]:
    """The values in an order that depends on the named axes alone."""
    seed = int.from_bytes(hashlib.sha256("\0".join(axes).encode()).digest())
    order = np.random.default_rng(seed).permutation(len(values))
    return [values[i] for i in order]


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


def _remedy(name: str) -> str:
    return f"Make it again with `run_bench.py splits {name.partition('/')[0].partition('-')[0]}`."
