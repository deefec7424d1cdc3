"""Wikipedia: 2,866 sections of featured articles, each with one picture, in ten classes (Rasiwasia et al. 2010)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets._arrays import open_arrays
from xshot_bench.datasets._dumps import Block, Dump, Reading, make_dump
from xshot_bench.datasets._folder import folder_of, read_lines, totals
from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.features import FeatureSet

CLASSES = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")
LISTS = {"train": "trainset_txt_img_cat.list", "test": "testset_txt_img_cat.list"}
OFFICIAL = {"train": 2173, "test": 693}


class Wikipedia(Dataset):
    """Wikipedia's articles and pictures, ten classes; --root DIR: its lists, and raw_features.mat.

    The features are SIFT words ``[N,128]`` and LDA topics ``[N,10]``. An item's id is its text's id.
    """

    name = "wikipedia"
    protocols = ("xshot", "kshot")
    has_features = True

    def __init__(self, dump: Dump) -> None:
        self._features, self.items, self.classes, self.parts = dump.features, dump.items, CLASSES, dump.parts
        self.digest = dump.digest
        self.notes = (*dump.notes, *totals(Counter(dump.parts.values()), OFFICIAL))

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, "trainset_txt_img_cat.list, testset_txt_img_cat.list, raw_features.mat")
        arrays = open_arrays(root / "raw_features.mat")
        blocks = {}
        for part, file in LISTS.items():
            rows = _rows(root / file)
            image, text = (arrays[f"{kind}_{part[:2]}"] for kind in "IT")
            blocks[part] = Block(image, text, np.array([row[2] for row in rows]), ids=[row[0] for row in rows])
        return cls(make_dump(blocks, Reading(CLASSES, skip_bad_items=options.skip_bad_items)))

    def picture(self, index: int) -> Image.Image:
        raise InputError("the folder of 'wikipedia' has no images, only their features.")

    def features(self) -> FeatureSet:
        return self._features


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """Text id, image id and class name of each line; "" for a number that is no class."""
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) != 3:
            raise InputError(f"{path}, line {number}: expected text id, image id and class number with tabs between.")
        known = cells[2].strip().isdecimal() and 1 <= int(cells[2]) <= len(CLASSES)
        found.append((cells[0].strip(), cells[1].strip(), CLASSES[int(cells[2]) - 1] if known else ""))
    return found
