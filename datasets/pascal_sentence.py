"""Pascal Sentence: 1,000 pictures in 20 classes of 50, with five sentences each (Rashtchian et al. 2010).

Either as UIUC's page has it, an HTML file beside the folders of pictures, or as it is commonly unpacked:

    dataset/<class>/<picture>.jpg
    sentence/<class>/<picture>.txt     five lines; the common script writes <picture>txt, without the dot
    correspondence.csv                 a running number and <class>/<picture>
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from xshot_bench import InputError
from xshot_bench.datasets import _clip4cmr
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._filed import FiledDataset, Pictures, checked_pictures
from xshot_bench.datasets._folder import folder_of, inside, read_lines, read_text
from xshot_bench.datasets._id_lists import choose, read_id_lists
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.splitting import Part
from xshot_bench.datasets.xshot import official_halves

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip
IN_WORDS = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
EXPECTED = "an HTML page beside the folders of pictures, or dataset/<class>/ and sentence/<class>/"
PICTURES = (".jpg", ".jpeg", ".png")


class PascalSentence(FiledDataset):
    """Pictures with five sentences, 20 classes (--root DIR: UIUC's page with its pictures, or dataset/ and sentence/).

    The five sentences are one text. An item's id is ``<class>/<picture>``, and they stand in its order. Parts come
    from the user's lists, or else each class is cut 40/5/5 in that order. CLIP4CMR's layout is read too.
    """

    name = "pascal_sentence"
    protocols = ("xshot", "kshot")
    official: Mapping[str, int] = {"train": 800, "val": 100, "test": 100}
    halves = official_halves(CLASSES)

    def __init__(self, content: Pictures, rebuilt: bool) -> None:
        super().__init__(content)
        self.edition = "rebuilt" if rebuilt else ""

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = folder_of(options, cls.name, EXPECTED)
        if _clip4cmr.is_there(root):
            found = _clip4cmr.candidates(root, CLASSES)
            return cls(checked_pictures(root, found, CLASSES, options), rebuilt=False)
        found = sorted(_unpacked(root) if (root / "dataset").is_dir() else _page(root), key=lambda item: item.id)
        lists = read_id_lists(root)
        if lists:
            numbers = _running_numbers(root)
            found = choose(lists, found, lambda c: (*_names(c), numbers.get(c.id, c.id)))
            return cls(checked_pictures(root, found, CLASSES, options), rebuilt=False)
        _cut(found)
        note = "split rebuilt: 40/5/5 of each class in the order of the files' names, as no list says the published one"
        return cls(checked_pictures(root, found, CLASSES, options, (note,)), rebuilt=True)

    def in_words(self, name: str) -> str:
        """The class name with its words apart."""
        return IN_WORDS.get(name, name)


def _class_of(folder: str) -> str:
    """The class of a folder, whatever way its name is written; "" where it is none."""
    plain = re.sub(r"[^a-z]", "", folder.lower())
    return plain if plain in CLASSES else ""


def _unpacked(root: Path) -> list[Candidate]:
    found: list[Candidate] = []
    for path in sorted((root / "dataset").glob("*/*")):
        if path.suffix.lower() in PICTURES:
            item = _candidate(path.relative_to(root).as_posix(), path.parent.name, path.stem)
            names = [f"sentence/{path.parent.name}/{path.stem}{end}" for end in (".txt", "txt")]
            text = next((root / name for name in names if (root / name).is_file()), None)
            if text is None:
                item.problem = item.problem or f"there is no file {names[0]!r}"
            else:
                try:
                    item.text = _one_text(read_lines(inside(root, text.relative_to(root).as_posix())))
                except InputError as error:
                    item.problem = str(error)
            found.append(item)
    if not found:
        raise InputError(f"{root} has no pictures in dataset/<class>/. Expected: {EXPECTED}.")
    return found


def _page(root: Path) -> list[Candidate]:
    """The pictures of UIUC's page, each with the cells that stand between it and the next one."""
    pages = [path for path in sorted(root.glob("*.htm*")) if "<img" in read_text(path).lower()]
    if len(pages) != 1:
        raise InputError(f"{root} has {len(pages)} HTML pages with pictures and no dataset/. Expected: {EXPECTED}.")
    found: list[Candidate] = []
    for source, rest in _images(read_text(pages[0])):
        cells = re.findall(r"<tr[^>]*>\s*<td[^>]*>(.*?)</td>\s*</tr>", rest, re.DOTALL | re.IGNORECASE)
        sentences = [html.unescape(re.sub(r"</?[A-Za-z][^<>]*>", " ", cell)) for cell in cells]
        name = unquote(html.unescape(source)).replace("\\", "/").removeprefix("./")
        folder, _, file = name.rpartition("/")
        item = _candidate(name, folder.rpartition("/")[2], file.rpartition(".")[0])
        item.where, item.text = f"{pages[0].name} picture {len(found) + 1}", _one_text(sentences)
        found.append(item)
    return found


def _images(page: str) -> Iterator[tuple[str, str]]:
    """The source of each picture, and what stands between it and the next one."""
    marks = list(re.finditer(r"<img\b[^>]*?\bsrc\s*=\s*[\"']?([^\"'>]+)[\"']?[^>]*>", page, re.IGNORECASE))
    ends = [mark.start() for mark in marks[1:]] + [len(page)]
    for mark, end in zip(marks, ends, strict=True):
        yield mark[1].strip(), page[mark.end() : end]


def _candidate(file: str, folder: str, stem: str) -> Candidate:
    label = _class_of(folder)
    problem = "" if label else f"its folder {folder[:40]!r} is none of the 20 classes"
    return Candidate(file, f"{label}/{stem}", "", label, file, problem=problem)


def _names(item: Candidate) -> tuple[str, str, str]:
    """What a list may call an item: its id, its picture, and its picture in the folder as that is written."""
    path = Path(item.file)
    return item.id, path.stem, f"{path.parent.name}/{path.stem}"


def _one_text(sentences: Sequence[str]) -> str:
    return " ".join(filter(None, (" ".join(sentence.split()) for sentence in sentences)))


def _running_numbers(root: Path) -> dict[str, str]:
    """Item id -> its running number in correspondence.csv, where there is one."""
    path = root / "correspondence.csv"
    numbers = {}
    for line in read_lines(path) if path.is_file() else ():
        number, _, name = line.partition(",")
        folder, _, file = name.strip().strip('"').replace("\\", "/").rpartition("/")
        stem = file.rpartition(".")[0] or file
        numbers[f"{_class_of(folder.rpartition('/')[2])}/{stem}"] = number.strip().strip('"')
    return numbers


def _cut(found: Sequence[Candidate]) -> None:
    """Of each class, in the order of the names, the last tenth is for test, the tenth before it for validation."""
    members: dict[str, list[Candidate]] = defaultdict(list)
    for item in found:
        members[item.label].append(item)
    for items in members.values():
        tenth = max(1, len(items) // 10)
        for place, item in enumerate(items):
            left = len(items) - place
            part: Part = "train" if left > 2 * tenth else "val" if left > tenth else "test"
            item.part = part
