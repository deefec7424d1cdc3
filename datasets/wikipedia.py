"""Wikipedia: 2,866 sections of featured articles, each with one picture, in ten classes (Rasiwasia et al. 2010).

categories.list                        the classes, in the order of their numbers
trainset_txt_img_cat.list, testset_…   text id, image id, class number from 1, with tabs (perhaps in wikipedia_info/)
texts/<text id>.xml, images/<class>/<image id>.jpg
raw_features.mat                       I_tr, I_te [n,128] SIFT words; T_tr, T_te [n,10] LDA topics
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets import _clip4cmr
from xshot_bench.datasets._arrays import open_arrays
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._dumps import Block, Dump, Reading, make_dump
from xshot_bench.datasets._filed import FiledDataset, checked_pictures
from xshot_bench.datasets._folder import existing, folder_of, inside, read_lines, read_text
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.splitting import Part
from xshot_bench.datasets.xshot import official_halves

CLASSES = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")
LONG_NAMES = {
    "art": "art and architecture",
    "geography": "geography and places",
    "literature": "literature and theatre",
    "royalty": "royalty and nobility",
    "sport": "sport and recreation",
}
LISTS: dict[Part, str] = {"train": "trainset_txt_img_cat.list", "test": "testset_txt_img_cat.list"}
EXPECTED = (
    "the lists trainset_txt_img_cat.list and testset_txt_img_cat.list with texts/ and images/, or raw_features.mat"
)


class Wikipedia(FiledDataset):
    """Articles with a picture, 10 classes (--root DIR: the official lists, texts and images, or raw_features.mat).

    Where the folder has no images, the features of raw_features.mat stand for them. An item's id is its text's id.
    CLIP4CMR's layout is read too.
    """

    name = "wikipedia"
    protocols = ("xshot", "kshot")
    prompts = ("a photo of {}.",)
    official: Mapping[str, int] = {"train": 2173, "test": 693}
    halves = official_halves(CLASSES)

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, EXPECTED)
        if _clip4cmr.is_there(root):
            return cls(checked_pictures(root, _clip4cmr.candidates(root, CLASSES), CLASSES, options))
        lists = {part: existing(root, file, f"wikipedia_info/{file}", what=EXPECTED) for part, file in LISTS.items()}
        rows = {part: list(_rows(path)) for part, path in lists.items()}
        if not (root / "images").is_dir():
            return cls(_features(root, rows, options))
        folders = _folders(lists["train"].parent)
        found = [_with_files(root, folders, part, row) for part, part_rows in rows.items() for row in part_rows]
        return cls(checked_pictures(root, found, CLASSES, options))

    def in_words(self, name: str) -> str:
        """The long name that papers use in prompts."""
        return LONG_NAMES.get(name, name)


def _rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, text id, image id and class name of each line; "" for a number that is no class."""
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path.name} line {number}"
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 3:
            raise InputError(f"{path}, line {number}: expected text id, image id and class number, with tabs between.")
        known = cells[2].isdecimal() and 1 <= int(cells[2]) <= len(CLASSES)
        yield where, cells[0], cells[1], CLASSES[int(cells[2]) - 1] if known else ""


def _folders(folder: Path) -> dict[str, str]:
    """The folder of each class's images: the names in categories.list, in the order of their numbers."""
    path = folder / "categories.list"
    names = [line.strip() for line in read_lines(path)] if path.is_file() else []
    return dict(zip(CLASSES, names if len(names) == len(CLASSES) else CLASSES, strict=True))


def _with_files(root: Path, folders: dict[str, str], part: Part, row: tuple[str, str, str, str]) -> Candidate:
    where, text_id, image_id, label = row
    file = f"images/{folders.get(label, label)}/{image_id}.jpg"
    found = Candidate(where, text_id, "", label, file, part, "" if label else "its class number is not among 1 to 10")
    if not found.problem:
        try:
            found.text = article(read_text(inside(root, f"texts/{text_id}.xml")))  # ids have dots: no with_suffix
        except InputError as error:
            found.problem = str(error)
    return found


def article(xml: str) -> str:
    """The body between the marks ``text>``, without tags; the files are not always well-formed, so no parser would do.

    A body whose end mark is missing ends at the reference to the picture, or with the file.
    """
    body = re.search(r"<text\b[^>]*>(.*?)(?:</text|<image\b|\Z)", xml, re.DOTALL)
    if body is None:
        return ""
    plain = re.sub(r"<!\[CDATA\[|\]\]>|</?[A-Za-z][^<>]*>", " ", body[1])
    return " ".join(html.unescape(plain).split())


def _features(root: Path, rows: dict[Part, list[tuple[str, str, str, str]]], options: DatasetOptions) -> Dump:
    if not (root / "raw_features.mat").is_file():
        raise InputError(f"{root} has neither images/ nor raw_features.mat. Expected: {EXPECTED}.")
    arrays = open_arrays(root / "raw_features.mat")
    blocks: dict[str, Block] = {}
    for part, part_rows in rows.items():
        image, text = (arrays[f"{kind}_{part[:2]}"] for kind in "IT")
        label = np.array([row[3] for row in part_rows])
        blocks[part] = Block(image, text, label, ids=[row[1] for row in part_rows])
    return make_dump(blocks, Reading(CLASSES, skip_bad_items=options.skip_bad_items))
