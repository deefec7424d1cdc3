"""A folder of the user's own: pictures and a metadata file, as Hugging Face's imagefolder datasets have it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from xshot_bench import InputError
from xshot_bench.datasets.base import Dataset, DatasetOptions, Item
from xshot_bench.datasets.xshot import LEAST_ITEMS

NAMES = ("metadata.csv", "metadata.jsonl")
REQUIRED, OPTIONAL = ("file_name", "text", "label"), ("split",)
MOST_SHOWN = 50


@dataclass
class _Row:
    """A row of the metadata file: the line it starts on, its fields, what is wrong with it, its picture's SHA-256."""

    line: int
    fields: dict[str, str]
    problem: str = ""
    picture: str = ""

    def __getitem__(self, column: str) -> str:
        return self.fields.get(column, "")


class Manifest(Dataset):
    """Your own pictures: a folder (--root DIR) with metadata.csv or .jsonl: file_name, text, label, perhaps split.

    ``split`` is train or test; where any row says test, those rows are the test items. Classes stand in alphabetical
    order. An item's id is its file name, and no picture is listed twice.
    """

    name = "manifest"

    def __init__(self, root: Path, rows: list[_Row], notes: tuple[str, ...] = ()) -> None:
        self._files = [root / row["file_name"] for row in rows]
        self.items = tuple(Item(row["file_name"], row["text"], row["label"]) for row in rows)
        self.classes = tuple(sorted({item.label for item in self.items}))
        self.notes = notes
        self.parts = {row["file_name"]: "test" for row in rows if row["split"] == "test"}
        content = [(i.id, i.text, i.label, row.picture) for i, row in zip(self.items, rows, strict=True)]
        self.digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        """Read the metadata and decode every picture once, to find all bad rows before anything is computed."""
        if options.root is None:
            raise InputError(
                "the dataset 'manifest' needs the folder that your pictures lie in. Give it with --root DIR."
            )
        root = options.root
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Give the folder of your pictures with --root DIR.")
        rows = _read(root)
        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            list(pool.map(lambda row: _inspect(root, row), rows))
        _find_repeated(rows)
        _find_small_classes(rows)
        good = [row for row in rows if not row.problem]
        notes: tuple[str, ...] = ()
        if len(good) < len(rows):
            if not (options.skip_bad_items and good):
                raise InputError(_report(rows))
            notes = (f"{len(rows) - len(good)} of {len(rows)} items are bad and left out",)
        return cls(root, good, notes)

    def picture(self, index: int) -> Image.Image:
        return _decode(self._files[index].read_bytes())


def _read(root: Path) -> list[_Row]:
    """The rows of the folder's one metadata file; `InputError` where it cannot be read as what it is."""
    present = [root / name for name in NAMES if (root / name).is_file()]
    if len(present) != 1:
        have = "both" if present else "neither"
        raise InputError(f"{root} has {have} of metadata.csv and metadata.jsonl. Exactly one is expected.")
    path = present[0]
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds NUL characters, so it is no text file")
        rows = list(_csv_rows(text) if path.suffix == ".csv" else _json_rows(text))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    if not rows:
        raise InputError(f"{path} lists no items. Expected: a row for each picture.")
    columns = set().union(*(row.fields for row in rows))
    unknown, missing = columns - {*REQUIRED, *OPTIONAL}, set(REQUIRED) - columns
    if unknown or missing:
        said = [f"unknown: {', '.join(repr(name[:80]) for name in sorted(unknown))}"] * bool(unknown)
        said += [f"missing: {', '.join(sorted(missing))}"] * bool(missing)
        raise InputError(
            f"the columns of {path} are wrong ({'; '.join(said)}). Expected: {', '.join(REQUIRED)}, and perhaps split."
        )
    return rows


def _csv_rows(text: str) -> Iterator[_Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    start = 1
    try:
        for cells in reader:
            if cells and not columns:
                columns = cells
                if len(set(columns)) < len(columns):
                    raise ValueError("it has two columns of one name")
            elif cells:
                problem = "it has more fields than there are columns" if len(cells) > len(columns) else ""
                fields = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
                yield _Row(start, fields, problem)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"the row that starts on line {start} is no CSV ({error})") from None


def _json_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values: Any = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON ({error})") from None
            if not isinstance(values, dict):
                raise ValueError(f"line {number} is no JSON object")
            nested = [key for key, value in values.items() if isinstance(value, (dict, list))]
            problem = f"{nested[0]} is not a text" if nested else ""
            yield _Row(number, {key: _text(value) for key, value in values.items()}, problem)


def _text(value: Any) -> str:
    """A JSON value as text: null is none, a number is written as JSON has it."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _inspect(root: Path, row: _Row) -> None:
    """Note in the row what is wrong with it, or else the SHA-256 (hex) of its picture."""
    row.problem = row.problem or _wrong_fields(row)
    if row.problem:
        return
    shown = repr(row["file_name"][:200])
    try:
        path = (root / row["file_name"]).resolve()
        if not path.is_relative_to(root.resolve()):
            row.problem = f"{shown} leads outside the folder"
        elif not path.is_file():
            row.problem = f"there is no file {shown}"
        else:
            content = path.read_bytes()
            _decode(content)
            row.picture = hashlib.sha256(content).hexdigest()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        row.problem = f"{shown} has more than the {Image.MAX_IMAGE_PIXELS} pixels that are safe to decode"
    except UnidentifiedImageError:
        row.problem = f"{shown} is not a picture of a known format"
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        row.problem = f"{shown} cannot be read ({reason})"


def _wrong_fields(row: _Row) -> str:
    for name in REQUIRED:
        if not row[name].strip():
            return f"{name} is empty"
        if any("\ud800" <= character <= "\udfff" for character in row[name]):
            return f"{name} holds half of a character (a lone surrogate)"
    return "" if row["split"] in ("", "train", "test") else f"split is {row['split'][:40]!r}, not train or test"


def _find_repeated(rows: list[_Row]) -> None:
    """Mark the rows whose picture was there before: it could train a method on one side and test it on the other."""
    first: dict[str, int] = {}
    for row in rows:
        if not row.problem:
            line = first.setdefault(row.picture, row.line)
            if line != row.line:
                row.problem = f"it has the picture of line {line}; join their texts in one row"


def _find_small_classes(rows: list[_Row]) -> None:
    """Mark the rows of classes from which no split can be made."""
    members: dict[str, Counter[bool]] = defaultdict(Counter)
    for row in rows:
        members[row["label"]][row["split"] == "test"] += not row.problem
    marked = any(count[True] for count in members.values())
    for row in rows:
        test, size = members[row["label"]][True], members[row["label"]].total()
        if not row.problem and size < LEAST_ITEMS:
            row.problem = f"class {row['label'][:80]!r} has {size} usable items, at least {LEAST_ITEMS} are needed"
        elif not row.problem and marked and test in (0, size):
            row.problem = f"class {row['label'][:80]!r} has no {'training' if test else 'test'} items"


def _decode(content: bytes) -> Image.Image:
    """The whole picture, upright, as RGB or RGBA."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 bits a channel")
    if upright.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255
        return Image.fromarray((np.asarray(upright, float) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    transparent = upright.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in upright.info
    return upright.convert("RGBA" if transparent else "RGB")


def _report(rows: list[_Row]) -> str:
    bad = [row for row in rows if row.problem]
    lines = [f"  line {row.line}: {row.problem}" for row in bad[:MOST_SHOWN]]
    more = [f"  ... and {len(bad) - MOST_SHOWN} more"] * (len(bad) > MOST_SHOWN)
    usable = "" if len(bad) < len(rows) else "None is usable. "
    head = f"{len(bad)} of {len(rows)} items are bad. {usable}Mend them, or go on without them with --skip-bad-items:"
    return "\n".join([head, *lines, *more])
