"""NUS-WIDE's ten largest concepts, pictures with exactly one of them (Chua et al. 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from xshot_bench.datasets._filed import FiledDataset, checked_pictures
from xshot_bench.datasets._folder import folder_of
from xshot_bench.datasets._nus_wide import EXPECTED, read_rows
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.xshot import official_halves

CLASSES = ("animal", "buildings", "clouds", "grass", "lake", "person", "plants", "sky", "water", "window")


class NusWide(FiledDataset):
    """Flickr photos and their tags, the 10 largest concepts, one a photo (--root DIR: NUS-WIDE as released).

    The test part is the released one. An item's id is its photo id.
    """

    name = "nus_wide"
    protocols = ("xshot", "kshot")
    official: Mapping[str, int] = {"train": 42941, "test": 28661}  # papers cut validation items from the test part
    halves = official_halves(CLASSES)

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, EXPECTED)
        rows = read_rows(root, CLASSES)
        notes = (f"{rows.untagged} photos of one concept have no tags and are left out",) * bool(rows.untagged)
        return cls(checked_pictures(root, rows.items, CLASSES, options, notes))
