"""Pictures of a Debian package: folders are classes, and a class has at least ten items."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._filed import FiledDataset, Pictures
from xshot_bench.datasets._words import says_something
from xshot_bench.datasets.base import DatasetOptions, Item

LEAST = 10


class PackagedDataset(FiledDataset):
    """What is the same for sets of Debian packages. No dataset itself."""

    def in_words(self, name: str) -> str:
        """The last folder of a class; with the one above it where two classes end alike."""
        last = name.rpartition("/")[2]
        alike = sum(c.rpartition("/")[2] == last for c in self.classes)
        return super().in_words(last if alike == 1 else name.replace("/", " "))


def package_folder(options: DatasetOptions, default: Path, name: str, packages: Sequence[str]) -> Path:
    """Where the package's files lie: the user's folder, else where Debian puts them."""
    root = options.root or default
    if not root.is_dir():
        raise InputError(
            f"{root} is not there: the dataset {name!r} needs {' and '.join(packages)} of Debian. "
            f"Install with apt-get install {' '.join(packages)}, or give the folder with --root DIR."
        )
    return root


def folder_class(name: Path) -> str:
    """The class of a file: its folder, to two levels."""
    return "/".join(name.parts[:-1][:2])


def packaged_pictures(root: Path, found: Sequence[Item], notes: tuple[str, ...] = ()) -> Pictures:
    """The items that say something, in classes of at least ten; an item's id is its file's name within ``root``."""
    telling = [item for item in found if says_something(item.text)]
    sizes = Counter(item.label for item in telling)
    items = tuple(item for item in telling if sizes[item.label] >= LEAST)
    if not items:
        raise InputError(f"{root} has no folder with at least {LEAST} pictures with texts.")
    files = tuple(root / item.id for item in items)
    digest = hashlib.sha256(json.dumps([[i.id, i.text, i.label] for i in items]).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    mute, small = len(found) - len(telling), len(telling) - len(items)
    notes += (f"{mute} items say nothing without their class name and are left out",) * bool(mute)
    notes += (f"{small} items are in folders with fewer than {LEAST} and are left out",) * bool(small)
    return Pictures(files, items, tuple(sorted({i.label for i in items})), {}, digest.hexdigest(), notes)
