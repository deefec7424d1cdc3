"""Tux Paint's stamps: photos and drawings with a line of English, from Debian's tuxpaint-stamps-default (GPL-2)."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from xshot_bench.datasets._folder import read_lines
from xshot_bench.datasets._packaged import PackagedDataset, folder_class, package_folder, packaged_pictures
from xshot_bench.datasets._words import stems, without
from xshot_bench.datasets.base import DatasetOptions, Item

STAMPS = Path("/usr/share/tuxpaint/stamps")
PACKAGE = "tuxpaint-stamps-default"


class TuxPaint(PackagedDataset):
    """Stamps of Tux Paint and their descriptions, classes by folder (Debian: tuxpaint-stamps-default).

    A class is a folder, to two levels, with at least ten stamps. The words of a description that hold the folder's name
    are taken out ("a clownfish" in ``fish``), and a stamp of which no word is left is left out.
    """

    name = "tuxpaint"

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = package_folder(options, STAMPS, cls.name, (PACKAGE,))
        found = [
            Item(stamp.id, without(stamp.text, stems(stamp.label.rpartition("/")[2])), stamp.label)
            for stamp in read_stamps(root)
        ]
        return cls(packaged_pictures(root, found))


def read_stamps(root: Path) -> list[Item]:
    """All stamps with their descriptions as they are: the first line of the text file beside each picture."""
    found = []
    for path in sorted(root.rglob("*.png")):
        text = path.with_suffix(".txt")
        if text.is_file() and not path.is_symlink():
            name = path.relative_to(root)
            found.append(Item(name.as_posix(), read_lines(text)[0].strip(), folder_class(name)))
    return found
