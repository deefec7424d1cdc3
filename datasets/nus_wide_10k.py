"""NUS-WIDE-10k: ten concepts of NUS-WIDE with a thousand photos each; which ones, the user's id lists say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from xshot_bench import InputError
from xshot_bench.datasets import _clip4cmr
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._filed import FiledDataset, Pictures, checked_pictures
from xshot_bench.datasets._folder import folder_of
from xshot_bench.datasets._id_lists import choose, read_id_lists
from xshot_bench.datasets._nus_wide import EXPECTED, is_there, read_rows
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.splitting import Part, shuffled
from xshot_bench.datasets.xshot import official_halves

CLASSES = ("clouds", "animal", "flowers", "food", "grass", "person", "sky", "toy", "water", "window")
SIZES: dict[Part, int] = {"train": 800, "val": 100, "test": 100}  # of each class


class NusWide10k(FiledDataset):
    """Flickr photos and their tags, 10 concepts of 1,000 (--root DIR: NUS-WIDE as released, with your id lists).

    The lists (``split/train.txt``, ``val.txt``, ``test.txt``) have a photo id or a path on each line. Without them the
    set is rebuilt: photos with tags and with exactly one of the concepts, a thousand of each drawn with a fixed seed.
    CLIP4CMR's layout is read too.
    """

    name = "nus_wide_10k"
    protocols = ("xshot", "kshot")
    official: Mapping[str, int] = {"train": 8000, "val": 1000, "test": 1000}
    halves = official_halves(CLASSES)

    def __init__(self, content: Pictures, rebuilt: bool) -> None:
        super().__init__(content)
        self.edition = "rebuilt" if rebuilt else ""

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, EXPECTED)
        if not is_there(root) and _clip4cmr.is_there(root):
            found = _clip4cmr.candidates(root, CLASSES)
            return cls(checked_pictures(root, found, CLASSES, options), rebuilt=False)
        items = read_rows(root, CLASSES).items
        lists = read_id_lists(root)
        if lists:
            found = choose(lists, items, _names)
            return cls(checked_pictures(root, found, CLASSES, options), rebuilt=False)
        note = "rebuilt: without an id list a thousand photos of each concept are drawn; no published set is this one"
        return cls(checked_pictures(root, _drawn(items), CLASSES, options, (note,)), rebuilt=True)


def _names(item: Candidate) -> tuple[str, str, str]:
    """What an id list may call a photo: its id, its file, its file with the folder."""
    path = Path(item.file)
    return item.id, path.name, f"{path.parent.name}/{path.name}"


def _drawn(items: Sequence[Candidate]) -> list[Candidate]:
    """A thousand of each class, always the same ones; the first 800 train, then 100 validate and 100 test."""
    members: dict[str, dict[str, Candidate]] = defaultdict(dict)
    for item in items:
        members[item.label][item.id] = item
    small = [f"{c} ({len(members[c])})" for c in CLASSES if len(members[c]) < sum(SIZES.values())]
    if small:
        raise InputError(
            f"a concept needs 1,000 photos that have it alone, and tags; too few have: {', '.join(small)}."
        )
    chosen = []
    for c in CLASSES:
        order = shuffled(list(members[c]), "nus_wide_10k", "rebuilt", c)
        parts = [part for part, size in SIZES.items() for _ in range(size)]
        for name, part in zip(order, parts, strict=False):
            members[c][name].part = part
            chosen.append(members[c][name])
    return chosen
