"""Finding one's way in a dataset's folder: variants of names, lines of lists, and never outside."""

from __future__ import annotations

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


def inside(root: Path, name: str) -> Path:
    """The path of a name that a data file gives; `InputError` where it leads outside the folder."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InputError(f"{name[:200]!r} leads outside the folder")
    return path


def first_of(root: Path, *names: str) -> Path | None:
    """The first of the names that there is in the folder."""
    return next((root / name for name in names if (root / name).exists()), None)


def existing(root: Path, *names: str, what: str) -> Path:
    """The first of the names that there is; `InputError` that says what was expected where there is none."""
    found = first_of(root, *names)
    if found is None:
        raise InputError(f"{root} has no {names[0]}. Expected: {what}.")
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends, empty ones too; `InputError` where it cannot be read.

    A line ends at a line feed and nowhere else: ``splitlines`` would cut at characters that occur in texts.
    """
    return [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]


def read_text(path: Path) -> str:
    """A text file; what is no UTF-8 in it is replaced. `InputError` where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
