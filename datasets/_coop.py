"""VT-CLIP's and CoOp's eleven datasets: one reader of their split files, and what else they share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._filed import FiledDataset, Pictures, listed_pictures
from xshot_bench.datasets._folder import folder_of, read_text
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.fetching import Origin
from xshot_bench.datasets.splitting import Part

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
PARTS: tuple[Part, ...] = ("train", "val", "test")
NO_TEXTS = "it has no texts: an item's text is its class's first prompt, so mAP is a diagnostic beside accuracy"


class Listed(NamedTuple):
    """An image as the lists have it: its path below the folder of images, and its class by number and name."""

    part: Part
    path: str
    number: int
    name: str


class CoOpDataset(FiledDataset):
    """Images with classes, split, named and prompted as CoOp has them (Zhou et al., IJCV 2022). No dataset itself.

    These sets have no texts: an item's text is its class's first prompt. Image to text then asks which class's prompt
    fits, text to image how well a prompt ranks the images. ``xshot`` is not offered: its texts would hold nothing but
    the names of the classes. Classes stand in the order of their numbers, items in the order of the lists, which CoOp's
    draws depend on; an item's id is its path. Pictures are read as CoOp reads them, not turned upright.

    images: the folder that the lists' paths are below. listing: the file that the dataset is known by.
    """

    protocols = ("kshot",)
    sampling = "coop"
    origin: ClassVar[Origin]
    images: ClassVar[str]
    listing: ClassVar[str]

    def __init__(self, content: Pictures, words: Mapping[str, str]) -> None:
        super().__init__(content)
        self._files, self._words = content.files, words

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        expected = ", ".join(cls.origin.needed)
        root = cls.origin.root(folder_of(options, cls.name, expected))
        if not (root / cls.listing).is_file():
            raise InputError(
                f"{root} has no {cls.listing}. Expected in the folder of {cls.name!r}: {expected}. "
                f"`run_bench.py fetch {cls.name}` says where to get what is missing."
            )
        rows = cls.rows(root)
        names: dict[int, str] = {}
        for row in rows:
            names.setdefault(row.number, row.name)
        classes = _distinct(dict(sorted(names.items())))
        words = {classes[number]: name.replace("_", " ") for number, name in names.items()}
        found = []
        for place, row in enumerate(rows, start=1):
            label, file = classes[row.number], f"{cls.images}/{row.path}" if cls.images else row.path
            text = cls.prompts[0].format(words[label])
            item = Candidate(f"{row.part} (item {place})", row.path, text, label, file, row.part)
            if row.name != names[row.number]:
                item.problem = f"class {row.number} is {row.name[:80]!r} here and {names[row.number][:80]!r} before"
            found.append(item)
        content = listed_pictures(root, found, tuple(classes.values()), options, (NO_TEXTS,))
        if len(content.items) < len(rows):
            content = replace(content, notes=(*content.notes, "without these, its draws are not CoOp's"))
        return cls(content, words)

    @classmethod
    def rows(cls, root: Path) -> Sequence[Listed]:
        """The images of the lists, in their order: of ``split_zhou_*.json`` as it is."""
        return read_split(root / cls.listing)

    def picture(self, index: int) -> Image.Image:
        with Image.open(self._files[index]) as picture:
            return picture.convert("RGB")

    def in_words(self, name: str) -> str:
        """A class name with its underscores as spaces; its hyphens stay, as in CoOp."""
        return self._words[name]


def read_split(path: Path) -> list[Listed]:
    """The images of a ``split_zhou_*.json``: ``{"train": [[path, class number, class name], ...], "val", "test"}``."""
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
            raise ValueError(f"it has not the lists {', '.join(PARTS)}")
        rows = [(part, row) for part in PARTS for row in content[part]]
        for part, row in rows:
            if not isinstance(row, list) or [type(cell) for cell in row] != [str, int, str]:
                raise ValueError(f"{json.dumps(row)[:80]} in {part} is not [path, class number, class name]")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no split file of CoOp's: {error}. Get it anew from {COOP}") from None
    return [Listed(part, *row) for part, row in rows]


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Class number -> a name of its own: of several classes of one name, each gets its number."""
    count = Counter(names.values())
    return {number: name if count[name] == 1 else f"{name} (class {number})" for number, name in names.items()}
