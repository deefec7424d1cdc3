"""A split that the user has as lists of ids, for sets whose release has none: ``split/train.txt`` and so on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._folder import first_of, read_lines
from xshot_bench.datasets.splitting import Part

FILES: dict[Part, tuple[str, ...]] = {
    "train": ("train.txt",), "val": ("val.txt", "valid.txt", "validation.txt"), "test": ("test.txt",)
}  # fmt: skip
EXPECTED = "train.txt, test.txt and perhaps val.txt in the folder or its split/, an id on each line"


@dataclass(frozen=True)
class Listed:
    """A line of a list: its place, the id it says, the list's part."""

    where: str
    id: str
    part: Part


def read_id_lists(root: Path) -> list[Listed]:
    """The lines of all lists, none where there are no lists. A number after a space, tab or colon is left away."""
    found = []
    for part, names in FILES.items():
        path = first_of(root, *(f"{folder}{name}" for name in names for folder in ("split/", "splits/", "")))
        for number, line in enumerate(read_lines(path) if path else (), start=1):
            if line.strip():
                name = re.sub(r"[\s:]+\d+$", "", line.strip()).replace("\\", "/")  # folders may have spaces
                found.append(Listed(f"{path.name if path else ''} line {number}", name, part))
    parts = {listed.part for listed in found}
    if found and not {"train", "test"} <= parts:
        raise InputError(f"{root} has lists of {', '.join(sorted(parts))} only. Expected: {EXPECTED}.")
    return found


def choose(
    listed: Sequence[Listed], items: Iterable[Candidate], names: Callable[[Candidate], Iterable[str]]
) -> list[Candidate]:
    """The items that are listed, in the lists' order, each with its part.

    names: what a list may call an item; a name of two items is nobody's. A line that fits no item becomes a bad one.
    """
    known: dict[str, Candidate | None] = {}
    for item in items:
        for name in dict.fromkeys(names(item)):
            known[name] = None if name in known else item
    chosen: list[Candidate] = []
    used: dict[str, str] = {}
    for line in listed:
        fit = known.get(line.id) or known.get(line.id.rpartition(".")[0])
        if fit is None:
            why = "is the name of several items" if line.id in known else "is no item of the set"
            chosen.append(Candidate(line.where, line.id, "", "", problem=f"{line.id[:80]!r} {why}"))
        elif fit.id in used:
            again = f"{fit.id!r} is listed before, by {used[fit.id]}"
            chosen.append(Candidate(line.where, fit.id, "", "", problem=again))
        else:
            used[fit.id] = line.where
            fit.part = line.part
            chosen.append(fit)
    return chosen
