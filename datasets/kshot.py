"""The K-shot split: no source; K labelled items of every class train, and every test item asks and is searched.

Shots are drawn in one of two ways. ``coop`` draws what CoOp's code draws (Zhou et al., IJCV 2022): Python's generator,
seeded with the draw's number, takes K of each class in the order in which the classes first appear in the training
list, then min(K, 4) of each class of the validation list; a class with fewer gives all it has, without a draw. These
draws are not nested. ``nested`` shuffles each class once a draw, and K shots are the first K: 1 ⊂ 2 ⊂ 4.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xshot_bench import InputError
from xshot_bench.datasets.splitting import Gallery, Part, Protocol, Roles, Shots, Split, digest_of, shuffled

Sampling = Literal["coop", "nested"]
Members = dict[str, tuple[str, ...]]

DRAWS = 10
VALIDATION = 4  # the most validation items of a class
LEAST_ITEMS = 2  # of a class: one for training, one for test
VARIANTS = ("", "base", "new")
MOST_SHOWN = 5


@dataclass(frozen=True)
class KShotSplit(Split):
    """A K-shot split. Draws are CoOp's seeds: 1, 2, 3, and so on.

    sampling: how shots are drawn. target: the classes that are tested, in the dataset's order. source: the classes
        that are trained on where those are others (base-to-new), else none.
    train, val, test: class -> item ids. The order of classes and items is that of the dataset's lists, on which
        CoOp's draws depend; so classes that play no part stand there too. A class without validation items has no
        entry in ``val``.
    """

    protocol: ClassVar[Protocol] = "kshot"
    takes_all: ClassVar[bool] = True

    sampling: Sampling
    target: tuple[str, ...]
    source: tuple[str, ...]
    train: Members
    val: Members
    test: Members

    @property
    def draws(self) -> tuple[int, ...]:
        return tuple(range(1, DRAWS + 1))

    @property
    def max_shots(self) -> int:
        """All items of the largest class where the smaller ones then give all they have (``coop``), else the least."""
        sizes = [len(self.train[c]) for c in self.source or self.target]
        return max(sizes) if self.sampling == "coop" else min(sizes)

    def remarks(self, shots: Sequence[Shots]) -> tuple[str, ...]:
        most = max((k for k in shots if k != "all"), default=0)
        small = [f"{c} ({len(self.train[c])})" for c in self.source or self.target if len(self.train[c]) < most]
        if not small:
            return ()
        named = ", ".join(small[:MOST_SHOWN]) + ", ..." * (len(small) > MOST_SHOWN)
        return (f"{len(small)} classes have fewer than {most} training items, and give all they have: {named}",)

    def roles(self, shots: Shots, draw: int, gallery: Gallery) -> Roles:
        """Base-to-new has the drawn items of the base classes as source, and no support; else they are the support."""
        train, val = self._drawn(shots, draw)
        tested = tuple(item for c in self.target for item in self.test[c])
        return Roles(
            source=_of(train, self.source),
            support=_of(train, self.target) if not self.source else (),
            validation=_of(val, self.target) if not self.source else (),
            image_queries=tested,
            text_queries=tested,
            image_gallery=tested,
            text_gallery=tested,
            source_classes=self.source,
            target_classes=self.target,
            validation_classes=self.source[1::4] if len(self.source) > 7 else self.source[1::3],
            candidates=self.target,
        )

    def _drawn(self, shots: Shots, draw: int) -> tuple[Members, Members]:
        """The training and validation items of a draw, of every class."""
        if shots == "all":
            return self.train, self.val
        few = min(shots, VALIDATION)
        if self.sampling == "coop":
            generator = random.Random(draw)
            return _sample(generator, self.train, shots), _sample(generator, self.val, few)
        dataset = self.name.partition("/")[0]
        return (
            {c: tuple(shuffled(ids, dataset, c, f"draw {draw}")[:shots]) for c, ids in self.train.items()},
            {c: tuple(shuffled(ids, dataset, c, f"validation of draw {draw}")[:few]) for c, ids in self.val.items()},
        )


def make_split(
    name: str,
    variant: str,
    labels: Mapping[str, str],
    classes: Sequence[str],
    parts: Mapping[str, Part] | None = None,
    *,
    sampling: Sampling = "nested",
) -> KShotSplit:
    """The split of the items ``labels`` (id -> class), always the same for the same items in the same order.

    Test items are those that ``parts`` (id -> part) marks ``test``, and validation items those it marks ``val``. Where
    it marks no test items, half of each class, drawn with a fixed seed, is for training and the rest test items.
    ``base`` trains and tests on the first half of the classes, the larger one; ``new`` trains on these and tests on
    the others. Raises `InputError` where a class has no training or no test items, or there are too few classes.
    """
    parts = parts or {}
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}, "test": {}}
    for item, label in labels.items():
        lists[parts.get(item, "train")].setdefault(label, []).append(item)
    if not lists["test"]:
        lists["train"], lists["test"] = _halves(name, lists["train"])
    bare = [repr(c) for c in classes if not (lists["train"].get(c) and lists["test"].get(c))]
    if bare:
        raise InputError(
            f"the protocol 'kshot' needs training and test items of every class, so at least {LEAST_ITEMS} of each; "
            f"not so: {', '.join(bare)}."
        )
    first = -(-len(classes) // 2)
    least = 4 if variant else 2
    if len(classes) < least:
        raise InputError(f"{f'{name}/{variant}'.rstrip('/')} needs at least {least} classes, there are {len(classes)}.")
    base, new = tuple(classes[:first]), tuple(classes[first:])
    content: dict[str, Any] = {
        "name": f"{name}/{variant}" if variant else name,
        "sampling": sampling,
        "target": {"": tuple(classes), "base": base, "new": new}[variant],
        "source": base if variant == "new" else (),
        **{part: {c: tuple(ids) for c, ids in members.items()} for part, members in lists.items()},
    }
    return KShotSplit(digest=digest_of(content, ordered=True), **content)


def _halves(name: str, members: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    train, test = {}, {}
    for c, ids in members.items():
        order = shuffled(ids, name, c, "test items")
        train[c], test[c] = order[: len(ids) // 2], order[len(ids) // 2 :]
    return train, test


def _sample(generator: random.Random, members: Members, count: int) -> Members:
    """CoOp's draw of ``count`` items of every class; see the module's docstring."""
    return {c: tuple(generator.sample(ids, count)) if len(ids) >= count else ids for c, ids in members.items()}


def _of(members: Members, classes: Iterable[str]) -> tuple[str, ...]:
    """The items of some classes, in the order of ``members``."""
    chosen = set(classes)
    return tuple(item for c, ids in members.items() if c in chosen for item in ids)
