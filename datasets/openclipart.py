"""Open Clip Art: drawings in the public domain with titles and keywords, from Debian's openclipart-png and -svg.

The words of a picture stand in the RDF of its twin of the other package.
"""

from __future__ import annotations

import html
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from xshot_bench.datasets._folder import read_text
from xshot_bench.datasets._packaged import PackagedDataset, folder_class, package_folder, packaged_pictures
from xshot_bench.datasets._words import joined, stems, without
from xshot_bench.datasets.base import DatasetOptions, Item

CLIP_ART = Path("/usr/share/openclipart")
PACKAGES = ("openclipart-png", "openclipart-svg")
REPETITIVE = ("computer/icons/", "shapes/stars/", "special/gradients/", "signs_and_symbols/flags/")
NO_CLASSES = ("unsorted", "special")
NO_KEYWORD = re.compile(r"hash(\(0x[0-9a-f]+\))?|unsorted", re.IGNORECASE)  # left by the program that sorted them
MOST_PIXELS = 25_000_000


@dataclass(frozen=True)
class ClipArt:
    """A drawing: its file's name within the folder png, its title ("" for none) and its keywords."""

    name: Path
    title: str
    keywords: tuple[str, ...]


class OpenClipArt(PackagedDataset):
    """Drawings with title and keywords, classes by folder (Debian: openclipart-png, openclipart-svg).

    A class is a folder, to two levels, with at least ten drawings; stars, flags, icons and patterns are left out. The
    text is the title, then the keywords that add a word, all without words that hold the name of one of the folders.
    """

    name = "openclipart"

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = package_folder(options, CLIP_ART, cls.name, PACKAGES)
        found = []
        for art in read_clip_art(root):
            label = folder_class(art.name)
            if not label.startswith(NO_CLASSES):
                parts = [part for part in stems(label) if part != "and"]
                words = (art.title, *(word for word in art.keywords if not NO_KEYWORD.fullmatch(word)))
                text = joined(without(phrase.replace("_", " "), parts) for phrase in words)
                found.append(Item(art.name.as_posix(), text, label))
        trained = "the heads of the encoder lite0-minilm were trained on these pictures: no zero-shot scores of it here"
        return cls(packaged_pictures(root / "png", found, (trained,)))


def read_clip_art(root: Path) -> list[ClipArt]:
    """The drawings with words, without those of `REPETITIVE` folders and those too large to decode in passing."""
    found = []
    for path in sorted((root / "png").rglob("*.png")):
        name, twin = path.relative_to(root / "png"), root / "svg" / path.relative_to(root / "png").with_suffix(".svg")
        if path.is_symlink() or name.as_posix().startswith(REPETITIVE) or not twin.is_file():
            continue
        about = re.search(r"<(?:\w+:)?RDF.*?</(?:\w+:)?RDF>", read_text(twin), re.DOTALL)
        if about is None or _pixels(path) > MOST_PIXELS:
            continue
        title = _entries(about[0], r"<dc:title[^>]*>(.*?)</dc:title>")
        subject = re.search(r"<dc:subject>(.*?)</dc:subject>", about[0], re.DOTALL)
        keywords = _entries(subject[1], r"<rdf:li[^>]*>(.*?)</rdf:li>") if subject else ()
        found.append(ClipArt(name, title[0] if title else "", keywords))
    return found


def _pixels(png: Path) -> int:
    with png.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return int(width * height)


def _entries(xml: str, pattern: str) -> tuple[str, ...]:
    return tuple(filter(None, (html.unescape(match).strip() for match in re.findall(pattern, xml, re.DOTALL))))
