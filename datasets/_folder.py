"""Finding one's way in a dataset's folder: variants of names, lines of lists, and never outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions


def folder_of(options: DatasetOptions, name: str, expected: str) -> Path:
    """The folder the user gave for a dataset; `InputError` that says what must lie in it."""
    if options.root is None:
        raise InputError(f"the dataset {name!r} needs its folder: {expected}. Give it with --root DIR.")
    if not options.root.is_dir():
        raise InputError(f"{options.root} is not a folder. Give that of {name!r} with --root DIR: {expected}.")
    return options.root


def first_of(root: Path, *names: str) -> Path | None:
    """The first of the names that there is in the folder."""
    return next((root / name for name in names if (root / name).exists()), None)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends, empty ones too; `InputError` where it cannot be read."""
    return read_text(path).splitlines()


def read_text(path: Path) -> str:
    """A text file; what is no UTF-8 in it is replaced. `InputError` where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def totals(counts: Mapping[str, int], official: Mapping[str, int]) -> tuple[str, ...]:
    """A note where the parts have other numbers of items than the official ones."""
    different = [part for part in official if counts.get(part, 0) != official[part]]
    if not different:
        return ()
    have, expected = (
        ", ".join(f"{numbers.get(part, 0):,} {part}" for part in official) for numbers in (counts, official)
    )
    return (f"it has {have} items; the official numbers are {expected}",)
