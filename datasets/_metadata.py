"""A metadata file beside pictures, CSV or JSON lines, as Hugging Face's imagefolder datasets have it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._folder import inside, read_text

NAMES = ("metadata.csv", "metadata.jsonl")
REQUIRED, TEXTS, OPTIONAL = ("file_name", "label"), ("text", "text_file"), ("split",)
EXPECTED = "Expected: file_name, text (or text_file), label, and perhaps split"
PARTS = ("", "train", "val", "test")


@dataclass(frozen=True)
class _Row:
    """A row as it is written: the line it starts on, its fields, what is wrong with its form."""

    line: int
    fields: dict[str, str]
    problem: str = ""


def read_metadata(root: Path) -> list[Candidate]:
    """The rows of the folder's one metadata file, each with what is wrong with its fields.

    An item's id is its file name; ``text_file`` names a file with the text in it. `InputError` where the file cannot
    be read as what it is.
    """
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
    unknown, missing = columns - {*REQUIRED, *TEXTS, *OPTIONAL}, set(REQUIRED) - columns
    missing |= {"text"} if not columns & set(TEXTS) else set()
    if unknown or missing:
        said = [f"unknown: {', '.join(repr(name[:80]) for name in sorted(unknown))}"] * bool(unknown)
        said += [f"missing: {', '.join(sorted(missing))}"] * bool(missing)
        raise InputError(f"the columns of {path} are wrong ({'; '.join(said)}). {EXPECTED}.")
    return [_candidate(root, row) for row in rows]


def _candidate(root: Path, row: _Row) -> Candidate:
    name, text, label, part = (row.fields.get(column, "") for column in ("file_name", "text", "label", "split"))
    problem = row.problem
    if not problem and row.fields.get("text_file", "").strip():
        text, problem = _text_in(root, row.fields["text_file"])
    for column, value in (("file_name", name), ("text", text), ("label", label)):
        if not value.strip():
            problem = problem or f"{column} is empty"
        if any("\ud800" <= character <= "\udfff" for character in value):
            problem = problem or f"{column} holds half of a character (a lone surrogate)"
    if part not in PARTS:
        problem = problem or f"split is {part[:40]!r}, not train, val or test"
    return Candidate(f"line {row.line}", name, text, label, file=name, part=part, problem=problem)


def _text_in(root: Path, name: str) -> tuple[str, str]:
    """The text of a text file, and what is wrong with it."""
    try:
        return read_text(inside(root, name)).strip(), ""
    except (InputError, ValueError, OSError) as error:
        return "", f"text_file {name[:200]!r}: {error}"


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
