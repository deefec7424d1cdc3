"""What XMediaNet and XMedia have in common: published features, or pictures with a metadata file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from xshot_bench import InputError
from xshot_bench.datasets import _clip4cmr
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._dumps import Dump, make_dump
from xshot_bench.datasets._filed import FiledDataset, Pictures, checked_pictures
from xshot_bench.datasets._folder import first_of, folder_of, read_lines
from xshot_bench.datasets._metadata import NAMES, read_metadata
from xshot_bench.datasets._sidecar import recognise
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.xshot import official_halves

CLASS_FILE = "classes.txt"


class XMediaDataset(FiledDataset):
    """Image-text pairs of one of the two sets. No dataset itself.

    class_count: how many classes it has. Their names come from classes.txt, a line each in the order of their numbers,
    or from the metadata file; else they are called by their numbers. sizes: items for training, and all others.
    """

    protocols = ("xshot", "kshot")
    class_count: ClassVar[int]
    sizes: ClassVar[tuple[int, int]]
    expected: ClassVar[str]

    def __init__(self, content: Pictures | Dump) -> None:
        train, others = self.sizes
        halved = "val" in content.parts.values()
        self.official = {"train": train} | ({"val": others // 2, "test": others // 2} if halved else {"test": others})
        self.halves = official_halves(content.classes)
        super().__init__(content)

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, cls.expected)
        names = cls._class_names(root)
        classes = names or tuple(f"class {number}" for number in range(1, cls.class_count + 1))
        if first_of(root, *NAMES):
            found = read_metadata(root)
            classes = _labelled(found, names)
        elif _clip4cmr.is_there(root):
            found = _clip4cmr.candidates(root, classes)
        else:
            sidecar = recognise(root)
            return cls(make_dump(sidecar.blocks(), sidecar.reading(options.skip_bad_items, classes)))
        return cls(checked_pictures(root, found, classes, options, cls._remarks(classes)))

    @classmethod
    def _class_names(cls, root: Path) -> tuple[str, ...]:
        """The names in classes.txt, none where there is no such file."""
        path = root / CLASS_FILE
        if not path.is_file():
            return ()
        names = tuple(line.strip() for line in read_lines(path) if line.strip())
        if len(set(names)) != cls.class_count:
            raise InputError(f"{path} has {len(set(names))} class names. Expected: {cls.class_count}, a line each.")
        return names

    @classmethod
    def _remarks(cls, classes: Sequence[str]) -> tuple[str, ...]:
        fewer = f"it has {len(classes)} classes; the published set has {cls.class_count}"
        unnamed = f"its classes have no names: give them in {CLASS_FILE}, a line each in the order of their numbers"
        said = (fewer,) if len(classes) != cls.class_count else ()
        return (*said, unnamed) if all(name.startswith("class ") for name in classes) else said


def _labelled(found: Sequence[Candidate], names: Sequence[str]) -> tuple[str, ...]:
    """Turn numbers in the label column into names, where there are names; the classes, in their order."""
    numbered = all(candidate.label.isdecimal() for candidate in found if not candidate.problem)
    if not numbered:
        known = Counter(candidate.label for candidate in found if not candidate.problem)
        return tuple(names) if set(known) <= set(names) else tuple(sorted(known))
    base = min((int(candidate.label) for candidate in found if not candidate.problem), default=0)
    last = max((int(candidate.label) for candidate in found if not candidate.problem), default=0)
    names = names or tuple(f"class {number}" for number in range(base, last + 1))
    for candidate in found:
        if not candidate.problem and int(candidate.label) - base >= len(names):
            candidate.problem = f"its label {candidate.label} is beyond the {len(names)} classes"
        elif not candidate.problem:
            candidate.label = names[int(candidate.label) - base]
    return tuple(names)
