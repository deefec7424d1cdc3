"""What a dataset's files list, good or bad: all that is wrong is said in one message, or left out when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from xshot_bench import InputError
from xshot_bench.datasets.splitting import Part

MOST_SHOWN = 50


@dataclass
class Candidate:
    """An item as the files list it.

    where: the file and line that a message names. file: its picture, relative to the root. part: of the dataset's own
    split, "" where it says none. problem: what is wrong with it. picture: the SHA-256 (hex) of its picture.
    """

    where: str
    id: str
    text: str
    label: str
    file: str = ""
    part: Part | str = ""
    problem: str = ""
    picture: str = ""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def usable(found: Sequence[AnyCandidate], skip_bad_items: bool) -> tuple[list[AnyCandidate], tuple[str, ...]]:
    """The good ones and a note on how many are left out; `InputError` with all that is bad unless they are skipped."""
    good = [candidate for candidate in found if not candidate.problem]
    if len(good) == len(found):
        return good, ()
    if not (skip_bad_items and good):
        raise InputError(report(found))
    return good, (f"{len(found) - len(good)} of {len(found)} items are bad and left out",)


def report(found: Sequence[Candidate]) -> str:
    """The message that says what is wrong with the bad ones, the first fifty in full."""
    bad = [candidate for candidate in found if candidate.problem]
    lines = [f"  {candidate.where}: {candidate.problem}" for candidate in bad[:MOST_SHOWN]]
    more = [f"  ... and {len(bad) - MOST_SHOWN} more"] * (len(bad) > MOST_SHOWN)
    some = "" if len(bad) < len(found) else "None is usable. "
    head = f"{len(bad)} of {len(found)} items are bad. {some}Mend them, or go on without them with --skip-bad-items:"
    return "\n".join([head, *lines, *more])
