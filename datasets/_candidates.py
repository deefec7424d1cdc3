"""What a dataset's files list, good or bad: all that is wrong is said in one message, or left out when asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from xshot_bench import InputError
from xshot_bench.datasets.splitting import Part

MOST_SHOWN, MOST_KINDS = 50, 6


@dataclass
class Candidate:
    """An item as the files list it, or a column of theirs that is not known.

    where: the file and line that a message names. file: its picture, relative to the root. part: of the dataset's own
    split, "" where it says none. problem: what is wrong with it. picture: the SHA-256 (hex) of its picture.
    is_column: whether it is a column and no item; then it is a problem, and left out it costs no item.
    """

    where: str
    id: str
    text: str
    label: str
    file: str = ""
    part: Part | str = ""
    problem: str = ""
    picture: str = ""
    is_column: bool = field(default=False, kw_only=True)


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def usable(found: Sequence[AnyCandidate], skip_bad_items: bool) -> tuple[list[AnyCandidate], tuple[str, ...]]:
    """The good items and a note on what is left out and why; `InputError` with all that is bad unless it is skipped."""
    good = [candidate for candidate in found if not candidate.problem]
    if len(good) == len(found):
        return good, ()
    if not (skip_bad_items and good):
        raise InputError(report(found))
    return good, (f"{_count(found)} and left out{_reasons(found)}",)


def _reasons(found: Sequence[Candidate]) -> str:
    """The kinds of problems that items have, with their numbers: ": there is no file … (3), text is empty (1)"."""
    problems = [candidate.problem for candidate in found if candidate.problem and not candidate.is_column]
    kinds = Counter(re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", problem) for problem in problems)
    named = [f"{kind} ({count})" for kind, count in kinds.most_common(MOST_KINDS)]
    return ": " * bool(named) + ", ".join(named) + ", …" * (len(kinds) > MOST_KINDS)


def report(found: Sequence[Candidate]) -> str:
    """The message that says all that is wrong, the first fifty in full."""
    bad = [candidate for candidate in found if candidate.problem]
    lines = [f"  {candidate.where}: {candidate.problem}" for candidate in bad[:MOST_SHOWN]]
    more = [f"  ... and {len(bad) - MOST_SHOWN} more"] * (len(bad) > MOST_SHOWN)
    some = "" if len(bad) < len(found) else "None is usable. "
    head = f"{_count(found)}. {some}Mend them, or go on without them with --skip-bad-items:"
    return "\n".join([head, *lines, *more])


def _count(found: Sequence[Candidate]) -> str:
    """How much is bad, as "2 of 30 items are bad, 1 column is unknown"."""
    items = [candidate for candidate in found if not candidate.is_column]
    bad, columns = sum(bool(item.problem) for item in items), len(found) - len(items)
    said = [f"{bad} of {len(items)} items are bad"] * bool(bad)
    said += [f"{columns} column{'s are' if columns > 1 else ' is'} unknown"] * bool(columns)
    return ", ".join(said)
