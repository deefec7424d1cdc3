"""A folder of the user's own: pictures and a metadata file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Self

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate, usable
from xshot_bench.datasets._filed import FiledDataset, Pictures
from xshot_bench.datasets._metadata import read_metadata
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.pictures import check_pictures
from xshot_bench.datasets.xshot import LEAST_ITEMS


class Manifest(FiledDataset):
    """Your own pictures: a folder (--root DIR) with metadata.csv or .jsonl: file_name, text, label, perhaps split.

    ``split`` is train, val or test; where any row says test, those rows are the test items. Classes stand in
    alphabetical order. An item's id is its file name, and no picture is listed twice. ``text_file`` in place of
    ``text`` names a file that holds the text.
    """

    name = "manifest"

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        """Read the metadata and decode every picture once, to find all bad rows before anything is computed."""
        root = options.root
        if root is None:
            raise InputError(
                "the dataset 'manifest' needs the folder that your pictures lie in. Give it with --root DIR."
            )
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Give the folder of your pictures with --root DIR.")
        found = read_metadata(root)
        check_pictures(root, found, options.cache)
        _find_repeated(found)
        _find_small_classes(found)
        good, notes = usable(found, options.skip_bad_items)
        return cls(Pictures.of(root, good, sorted({candidate.label for candidate in good}), notes))


def _find_repeated(found: Sequence[Candidate]) -> None:
    """Mark the rows whose picture was there before: it could train a method on one side and test it on the other."""
    first: dict[str, str] = {}
    for row in found:
        if not row.problem:
            where = first.setdefault(row.picture, row.where)
            if where != row.where:
                row.problem = f"it has the picture of {where}; join their texts in one row"


def _find_small_classes(found: Sequence[Candidate]) -> None:
    """Mark the rows of classes from which no split can be made."""
    members: dict[str, Counter[bool]] = defaultdict(Counter)
    for row in found:
        members[row.label][row.part == "test"] += not row.problem and row.part != "val"
    marked = any(count[True] for count in members.values())
    for row in found:
        test, size = members[row.label][True], members[row.label].total()
        if not row.problem and size < LEAST_ITEMS:
            row.problem = f"class {row.label[:80]!r} has {size} usable items, at least {LEAST_ITEMS} are needed"
        elif not row.problem and marked and test in (0, size):
            row.problem = f"class {row.label[:80]!r} has no {'training' if test else 'test'} items"
