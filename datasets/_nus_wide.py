"""NUS-WIDE's own layout (Chua et al. 2009): row-aligned lists of pictures, labels and tags.

    ImageList/Imagelist.txt, TrainImagelist.txt, TestImagelist.txt    paths with backslashes
    Groundtruth/AllLabels/Labels_<concept>.txt                        a 0 or 1 for every line of Imagelist.txt
    NUS_WID_Tags/All_Tags.txt                                         photo id and tags, for every line of Imagelist.txt
    Flickr/<folder>/<number>_<photo id>.jpg

Copies differ: all of it in a folder ``NUS-WIDE`` or ``NUS_WIDE``, ``AllLabels81`` for ``AllLabels``, lists beside the
other folders, pictures without the folders between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._folder import existing, first_of, read_lines, read_text

EXPECTED = "ImageList/, Groundtruth/AllLabels/, NUS_WID_Tags/All_Tags.txt and the pictures in Flickr/"
PICTURES = ("Flickr", "images", "Images", "image")


@dataclass(frozen=True)
class Rows:
    """The rows of Imagelist.txt that have exactly one of the concepts and at least one tag, as candidates.

    untagged: how many more have one concept and no tag.
    """

    items: list[Candidate]
    untagged: int


def is_there(root: Path) -> bool:
    """Whether a folder has this layout."""
    return first_of(_base(root), "ImageList/Imagelist.txt", "Imagelist.txt") is not None


def read_rows(root: Path, concepts: Sequence[str]) -> Rows:
    """The single-label rows with their tags as text. An item's id is its photo id; its part that of the lists.

    `InputError` where files are missing, or labels or tags are not aligned with the pictures.
    """
    base = _base(root)
    listed = existing(base, "ImageList/Imagelist.txt", "Imagelist.txt", what=EXPECTED)
    names = [line.strip().replace("\\", "/") for line in read_lines(listed)]
    labels = np.stack([_labels(base, concept, len(names)) for concept in concepts])
    rows = np.flatnonzero(labels.sum(0) == 1)
    tags = read_lines(existing(base, "NUS_WID_Tags/All_Tags.txt", "All_Tags.txt", what=EXPECTED))
    if len(tags) != len(names):
        raise InputError(f"All_Tags.txt has {len(tags)} lines and {listed.name} {len(names)}. Expected: one for each.")
    test = {line.strip().replace("\\", "/") for line in _test_list(listed)}
    place = existing(base, *PICTURES, what=EXPECTED)
    flat = not any(path.is_dir() for path in place.iterdir())
    items, untagged = [], 0
    for row in rows:
        photo, _, text = " ".join(tags[row].split()).partition(" ")
        name = names[row]
        if photo != _photo(name):
            raise InputError(
                f"All_Tags.txt line {row + 1} is of photo {photo[:20]!r}, {listed.name} has {name!r} there. Expected: "
                "the same photos in the same order."
            )
        untagged += not text
        if text:
            file = (place / (name.rpartition("/")[2] if flat else name)).relative_to(root).as_posix()
            label = concepts[int(labels[:, row].argmax())]
            part = "test" if name in test else "train"
            items.append(Candidate(f"{listed.name} line {row + 1}", photo, text, label, file, part))
    return Rows(items, untagged)


def _base(root: Path) -> Path:
    return first_of(root, "NUS-WIDE", "NUS_WIDE", "NUSWIDE") or root


def _photo(name: str) -> str:
    return name.rpartition("_")[2].partition(".")[0]


def _labels(base: Path, concept: str, rows: int) -> np.ndarray:
    """Which rows ``[N]`` have the concept."""
    names = [f"Groundtruth/{folder}/Labels_{concept}.txt" for folder in ("AllLabels", "AllLabels81")]
    path = existing(base, *names, *(name.partition("/")[2] for name in names), what=EXPECTED)
    values = read_text(path).split()
    if len(values) != rows:
        raise InputError(f"{path} has {len(values)} labels for {rows} pictures. Expected: one for each.")
    if not set(values) <= {"0", "1"}:
        raise InputError(f"{path} has other values than 0 and 1: {sorted(set(values) - {'0', '1'})[0][:20]!r}.")
    return np.array(values) == "1"


def _test_list(listed: Path) -> list[str]:
    path = listed.with_name("TestImagelist.txt")
    if not path.is_file():
        raise InputError(f"{path} is missing. It says which pictures are for test.")
    return read_lines(path)
