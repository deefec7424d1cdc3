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
    """The rows of the folder's one metadata file, each with what is wrong with its fields; first the unknown columns.

    An item's id is its file name; ``text_file`` names a file with the text in it. `InputError` where the file cannot
    be read as what it is.
    """
    try:
        present = [root / name for name in NAMES if (root / name).is_file()]
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}). Change its permissions.") from None
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
    first = {column: row.line for row in reversed(rows) for column in row.fields}
    missing = {*REQUIRED, *(["text"] if first.keys().isdisjoint(TEXTS) else [])} - first.keys()
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(sorted(missing))}. {EXPECTED}.")
    unknown = sorted(first.keys() - {*REQUIRED, *TEXTS, *OPTIONAL}, key=lambda column: first[column])
    head = [_unknown(column, 1 if path.suffix == ".csv" else first[column]) for column in unknown]
    return [*head, *(_candidate(root, row) for row in rows)]


def _unknown(column: str, line: int) -> Candidate:
    problem = f"unknown column {column[:80]!r}. {EXPECTED}"
    return Candidate(f"line {line}", "", "", "", problem=problem, is_column=True)


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
