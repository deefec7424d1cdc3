"""A folder of the user's own: pictures and a metadata file, as Hugging Face's imagefolder datasets have it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image, ImageOps

from xshot_bench import InputError
from xshot_bench.datasets.base import Dataset, DatasetOptions, Item
from xshot_bench.datasets.splitting import LEAST_ITEMS, Split, check_split, make_split

NAMES = ("metadata.csv", "metadata.jsonl")
REQUIRED, OPTIONAL = ("file_name", "text", "label"), ("split",)
MOST_SHOWN = 50
VARIANTS = ("", "b", "c")


@dataclass(frozen=True)
class _Row:
    """A row of the metadata, and the line of the file at which it starts."""

    line: int
    fields: dict[str, str]


class Manifest(Dataset):
    """Your own pictures: a folder (--root DIR) with metadata.csv or .jsonl: file_name, text, label, perhaps split.

    ``split`` is train or test; where it is given, test items are those. Classes stand in alphabetical order. An item's
    id is its file name, with ``#line`` where a file is listed more than once.
    """

    def __init__(self, root: Path, rows: list[_Row], digest: str, notes: tuple[str, ...]) -> None:
        listed = Counter(row.fields["file_name"] for row in rows)
        names = [row.fields["file_name"] + f"#{row.line}" * (listed[row.fields["file_name"]] > 1) for row in rows]
        self.items = tuple(
            Item(name, row.fields["text"], row.fields["label"]) for name, row in zip(names, rows, strict=True)
        )
        self.classes = tuple(sorted({item.label for item in self.items}))
        self.digest, self.notes = digest, notes
        self._files = [root / row.fields["file_name"] for row in rows]
        self._test = {name for name, row in zip(names, rows, strict=True) if row.fields.get("split") == "test"}

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        if options.root is None:
            raise InputError(
                "the dataset 'manifest' needs the folder that your pictures lie in. Give it with --root DIR."
            )
        root = options.root
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Give the folder of your pictures with --root DIR.")
        rows = _read(root)
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda row: _inspect(root, row), rows))
        problems = {row.line: problem for row, (problem, _) in zip(rows, found, strict=True) if problem}
        good = [row for row in rows if row.line not in problems]
        sizes = Counter(row.fields["label"] for row in good)
        for row in good:
            if sizes[row.fields["label"]] < LEAST_ITEMS:
                problems[row.line] = (
                    f"class {row.fields['label']!r} has {sizes[row.fields['label']]} usable items, "
                    f"at least {LEAST_ITEMS} are needed"
                )
        if problems and not options.skip_bad_items:
            raise InputError(_report(problems, len(rows)))
        good = [row for row in good if row.line not in problems]
        if not good:
            raise InputError(f"{root} has no usable item. " + _report(problems, len(rows)))
        contents = {row.line: content for row, (_, content) in zip(rows, found, strict=True)}
        digest = hashlib.sha256()
        for row in good:
            digest.update(json.dumps([row.fields, contents[row.line]], sort_keys=True).encode())
        notes = (f"{len(problems)} of {len(rows)} items are bad and left out",) if problems else ()
        return cls(root, good, digest.hexdigest(), notes)

    def picture(self, index: int) -> Image.Image:
        return _decode(self._files[index].read_bytes())

    def split(self, variant: str = "") -> Split:
        if variant not in VARIANTS:
            raise InputError(f"manifest has no class split {variant!r}. There are: manifest, manifest/b, manifest/c.")
        split = make_split("manifest", variant, self.labels, self.classes, frozenset(self._test))
        check_split(split, self.labels, self.classes)
        return split


def _read(root: Path) -> list[_Row]:
    """The rows of the folder's one metadata file; `InputError` where it cannot be read as what it is."""
    present = [root / name for name in NAMES if (root / name).is_file()]
    if len(present) != 1:
        have = "both" if present else "neither"
        raise InputError(f"{root} has {have} of metadata.csv and metadata.jsonl. Exactly one is expected.")
    path = present[0]
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(_csv_rows(text) if path.suffix == ".csv" else _json_rows(text))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except (csv.Error, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    if not rows:
        raise InputError(f"{path} lists no items. Expected: a row for each picture.")
    columns = set().union(*(row.fields for row in rows))
    unknown, missing = columns - {*REQUIRED, *OPTIONAL}, set(REQUIRED) - columns
    if unknown or missing:
        said = [f"unknown: {', '.join(map(repr, sorted(unknown)))}"] * bool(unknown)
        said += [f"missing: {', '.join(sorted(missing))}"] * bool(missing)
        raise InputError(
            f"the columns of {path} are wrong ({'; '.join(said)}). Expected: {', '.join(REQUIRED)}, and perhaps split."
        )
    return rows


def _csv_rows(text: str) -> Iterator[_Row]:
    if "\0" in text:
        raise ValueError("it holds NUL characters, so it is no text file")
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), restkey="(more fields than columns)", restval="", strict=True
    )
    start = 2
    for fields in reader:
        yield _Row(start, {str(key): str(value) for key, value in fields.items()})
        start = reader.line_num + 1


def _json_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                fields: Any = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON ({error})") from None
            if not isinstance(fields, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield _Row(
                number, {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
            )


def _inspect(root: Path, row: _Row) -> tuple[str, str]:
    """What is wrong with a row, or else the SHA-256 (hex) of its picture."""
    for name in REQUIRED:
        if not row.fields.get(name, "").strip():
            return f"{name} is empty", ""
    if row.fields.get("split", "") not in ("", "train", "test"):
        return f"split is {row.fields['split'][:40]!r}, not train or test", ""
    name = row.fields["file_name"]
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            return f"{name!r} leads outside the folder", ""
        content = path.read_bytes()
        _decode(content)
    except FileNotFoundError:
        return f"there is no file {name!r}", ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        return f"{name!r} is no readable picture ({reason})", ""
    return "", hashlib.sha256(content).hexdigest()


def _decode(content: bytes) -> Image.Image:
    """The whole picture, upright, as RGB or RGBA; one of too many pixels is refused before it is decoded."""
    with Image.open(io.BytesIO(content)) as picture:
        limit = Image.MAX_IMAGE_PIXELS or 0
        if picture.width * picture.height > limit:
            raise Image.DecompressionBombError(f"{picture.width} × {picture.height} pixels, at most {limit} are read")
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        return upright.convert(
            "RGBA" if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info else "RGB"
        )


def _report(problems: dict[int, str], rows: int) -> str:
    lines = [f"  line {line}: {problem}" for line, problem in sorted(problems.items())]
    more = [f"  ... and {len(lines) - MOST_SHOWN} more"] * (len(lines) > MOST_SHOWN)
    head = f"{len(problems)} of {rows} items are bad. Mend them, or go on without them with --skip-bad-items:"
    return "\n".join([head, *lines[:MOST_SHOWN], *more])
