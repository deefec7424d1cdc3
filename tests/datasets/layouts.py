"""Small trees in exactly the layouts that the datasets are passed on in, with the traps that real copies have.

Each function fills ``root`` and returns the items that a loader is to find, in their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from xshot_bench.datasets.base import Dataset


class Pair(NamedTuple):
    """An item as it is to be read."""

    id: str
    text: str
    label: str
    part: str


def pairs(data: Dataset) -> list[tuple[str, str, str, str]]:
    """The items as a loader found them."""
    return [(i.id, i.text, i.label, data.parts[i.id]) for i in data.items]


def save_picture(path: Path, seed: int | str) -> None:
    """A small picture that no other seed has."""
    number = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


# --- Wikipedia -------------------------------------------------------------------------------------------------------

WIKIPEDIA = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")
HEAD = '<?xml version="1.0" encoding="UTF-8" ?>\n<article>\n<name>An article</name>\n'
# the file as it is, and the text it has; the second to fifth are no XML
ARTICLES: tuple[tuple[str | bytes, str], ...] = (
    (HEAD + "<text>\nBees &amp; wasps\nfly.\n</text>\n<image id='x'/>\n</article>", "Bees & wasps fly."),
    (HEAD + "<text>\nSalt & pepper, x < y\n</text>\n<image id='x'>", "Salt & pepper, x < y"),
    (HEAD + "<text>\nNo end mark\n<image id='x'/>\n</article>", "No end mark"),
    (HEAD + "<text>\nCut off in the mid", "Cut off in the mid"),
    (HEAD.encode() + b"<text>\ncaf\xe9 au lait\n</text>", "caf\ufffd au lait"),
    (HEAD + "<text><![CDATA[\nraw <i>and</i> plain\n]]></text>", "raw and plain"),
    (HEAD + "<text>\nα\u2028β\x0cγ\n</text>", "α β γ"),
)


def wikipedia(
    root: Path, train: int = 4, test: int = 2, lists: str = "", folders: Sequence[str] = WIKIPEDIA
) -> list[Pair]:
    """``train``, ``test``: items a class. ``lists``: the folder of the lists. Text ids have a dash and dots in them."""
    found = []
    write(root / lists / "categories.list", "".join(f"{name}\n" for name in folders))
    for part, size in (("train", train), ("test", test)):
        lines = []
        for number in range(size * len(WIKIPEDIA)):
            label = number % len(WIKIPEDIA)
            digest = hashlib.md5(f"{part} {number}".encode()).hexdigest()
            text_id = f"{digest}-{number % 3}" + (f".{number % 12}" if number % 2 else "")
            image_id = hashlib.md5(f"picture {part} {number}".encode()).hexdigest()
            lines.append(f"{text_id}\t{image_id}\t{label + 1}\n")
            xml, text = ARTICLES[number % len(ARTICLES)]
            write(root / "texts" / f"{text_id}.xml", xml)
            save_picture(root / "images" / folders[label] / f"{image_id}.jpg", image_id)
            found.append(Pair(text_id, text, WIKIPEDIA[label], part))
        write(root / lists / f"{part}set_txt_img_cat.list", "".join(lines))
    return found


# --- CLIP4CMR --------------------------------------------------------------------------------------------------------


def clip4cmr(root: Path, classes: Sequence[str], base: int, images: str = "images", texts: str = "text") -> list[Pair]:
    """Five items a class: three for training, one each for validation and test."""
    found = []
    for part, file, size in (("train", "train.txt", 3), ("val", "valid.txt", 1), ("test", "test.txt", 1)):
        lines = []
        for number in range(size * len(classes)):
            name = f"{part}-{number}.{number % 7}"
            lines.append(f"{name}:{number % len(classes) + base}\n")
            write(root / texts / f"{name}.json", json.dumps(f"text of {name}, é"))
            save_picture(root / images / f"{name}.jpg", name)
            found.append(Pair(name, f"text of {name}, é", classes[number % len(classes)], part))
        write(root / "split" / file, "".join(lines))
    return found


# --- Pascal Sentence -------------------------------------------------------------------------------------------------

PASCAL = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
          "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip
SPELLINGS = {"diningtable": "dining table", "tvmonitor": "tv_monitor", "pottedplant": "PottedPlant"}


def _cut(place: int, size: int) -> str:
    tenth = max(1, size // 10)
    return "train" if place < size - 2 * tenth else "val" if place < size - tenth else "test"


def _sentences(label: str, number: int) -> list[str]:
    return [f"A {label} & sentence {k} of {number}." for k in range(5)]


def pascal_unpacked(root: Path, size: int = 10, spellings: dict[str, str] = SPELLINGS) -> list[Pair]:
    """Every second sentence file is named without the dot; some have blank lines and carriage returns."""
    found, numbers = [], []
    for c, label in enumerate(PASCAL):
        folder = spellings.get(label, label)
        for n in range(size):
            stem = f"2008_{c * size + n:06d}"
            save_picture(root / "dataset" / folder / f"{stem}.jpg", f"{label} {n}")
            end = "\r\n" if n % 3 == 0 else "\n"
            text = end.join([*_sentences(label, n), "", ""])
            write(root / "sentence" / folder / f"{stem}{'txt' if n % 2 else '.txt'}", text)
            numbers.append(f"{len(numbers) + 1},{folder}/{stem}.jpg\n")
            found.append(Pair(f"{label}/{stem}", " ".join(_sentences(label, n)), label, _cut(n, size)))
    write(root / "correspondence.csv", "".join(numbers))
    return found


def pascal_page(root: Path, size: int = 10) -> list[Pair]:
    """UIUC's page: one table, and in each row a picture and a table with its five sentences."""
    rows, found = [], []
    for c, label in enumerate(PASCAL):
        for n in range(size):
            file = f"{label}/2008_{c * size + n:06d}.jpg"
            save_picture(root / file, f"{label} {n}")
            cells = "".join(f"<tr><td> {s.replace('&', '&amp;')} </td></tr>\n" for s in _sentences(label, n))
            mark = f'<img src="{file}">' if n % 2 else f"<IMG alt='' src='{file}' width=500/>"
            rows.append(f"<tr><td>{mark}</td>\n<td><table>\n{cells}</table></td></tr>\n")
            found.append(Pair(file.removesuffix(".jpg"), " ".join(_sentences(label, n)), label, _cut(n, size)))
    write(root / "index.html", f"<html><body><table>\n{''.join(rows)}</table></body></html>\n")
    return found


# --- NUS-WIDE --------------------------------------------------------------------------------------------------------


def nus_wide(root: Path, concepts: Sequence[str], size: int = 5, base: str = "NUS-WIDE", labels: str = "AllLabels",
             flat: bool = False) -> list[Pair]:  # fmt: skip
    """``size`` photos a concept that have it alone, every fifth for test; between them rows that are not in the set.

    These have two concepts, none, or no tags. Some tags have characters that other programs take for ends of lines.
    """
    top = root / base
    rows: list[tuple[str, str, set[str]]] = []
    for n in range(size):
        for c, concept in enumerate(concepts):
            tags = ["sunset nikon", "x\u2028y\x0b z", "caf\xe9  blue ", "a\tb"][n % 4]
            rows.append((concept, tags, {concept}))
            if c % 3 == 0:
                rows.append((concept, "two things", {concept, concepts[c - 1]}))
            if c % 4 == 0:
                rows.append((concept, "", {concept}))
        rows.append(("sky", "nothing of it", set()))
    found, names, all_tags, test, train = [], [], [], [], []
    for k, (folder, tags, has) in enumerate(rows):
        photo = str(2124494179 + 7 * k)
        name = f"{folder}\\{k + 1:04d}_{photo}.jpg"
        names.append(name)
        all_tags.append(f"{photo}      {tags}")
        is_test = k % 5 == 4
        (test if is_test else train).append(name)
        save_picture(top / "Flickr" / (name.split("\\")[1] if flat else name.replace("\\", "/")), photo)
        if len(has) == 1 and tags:
            found.append(Pair(photo, " ".join(tags.split()), folder, "test" if is_test else "train"))
    for file, lines in (("Imagelist", names), ("TrainImagelist", train), ("TestImagelist", test)):
        write(top / "ImageList" / f"{file}.txt", "".join(f"{line}\r\n" for line in lines))
    for concept in concepts:
        write(
            top / "Groundtruth" / labels / f"Labels_{concept}.txt",
            "".join(f"{int(concept in has)}\n" for _, _, has in rows),
        )
    write(top / "NUS_WID_Tags" / "All_Tags.txt", "".join(f"{line}\n" for line in all_tags))
    return found


# --- published features ----------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Features of one part: image ``[n,d_i]``, text ``[n,d_t]``, label ``[n]`` from 0."""

    image: np.ndarray
    text: np.ndarray
    label: np.ndarray


def tables(classes: int, train: int = 4, test: int = 2, dims: tuple[int, int] = (6, 3)) -> dict[str, Table]:
    """Random features, ``train`` and ``test`` items a class, in mixed order."""
    rng = np.random.default_rng(classes)
    made = {}
    for part, size in (("train", train), ("test", test)):
        label = rng.permutation(np.repeat(np.arange(classes), size))
        made[part] = Table(*(rng.normal(size=(len(label), d)).astype(np.float32) for d in dims), label)
    return made


def dadn(root: Path, made: dict[str, Table], classes: int) -> None:
    """DADN's text files; labels from 1, names like ImageNet's."""
    for part, table in made.items():
        names = [f"n0434{n % 7}_{n}_{part}.JPEG" for n in range(len(table.label))]
        for kind, array in (("img", table.image), ("txt", table.text)):
            root.mkdir(parents=True, exist_ok=True)
            np.savetxt(root / f"{kind}_{part}_fea.txt", array, fmt="%.9g")
            lines = [f"{name} {label + 1}\n" for name, label in zip(names, table.label, strict=True)]
            write(root / f"{kind}_{part}_list.txt", "".join(lines))
    np.savetxt(root / "cate_fea.txt", np.random.default_rng(1).normal(size=(classes, 3)))
