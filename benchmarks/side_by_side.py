"""Two result folders, or git revisions of one, cell by cell: better, worse or same, by the tests of the tables."""

from __future__ import annotations

import io
import math
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from xshot_bench import InputError
from xshot_bench.benchmarks.comparison import Difference
from xshot_bench.benchmarks.ladder import Drawn, difference
from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.significance import ALPHA, Correction, correct
from xshot_bench.benchmarks.store import Store
from xshot_bench.datasets.splitting import Shots

REFERENCE = "results/reference"  # what a revision without a path means
Verdict = Literal["better", "worse", "same", "identical", "only in A", "only in B", "not compared"]


@dataclass(frozen=True)
class Key:
    """What a cell of both tables has in common; the draws are what is paired."""

    dataset: str
    shots: Shots
    method: str
    encoder: str
    gallery: str
    split: str


@dataclass(frozen=True)
class Change:
    """One method on one dataset at one X, B minus A.

    verdict: ``same`` where the corrected test does not tell them apart, ``identical`` where every AP is.
    a, b: mean mAP of each. changed: what differs between the cells (code, parameters, features, protocol).
    failed: how many cells failed in either. note: what else to know.
    """

    key: Key
    verdict: Verdict
    a: float = float("nan")
    b: float = float("nan")
    difference: Difference | None = None
    changed: tuple[str, ...] = ()
    failed: int = 0
    note: str = ""


@dataclass(frozen=True)
class Judging:
    """How it is judged whether a change is one; ``margin`` is a fraction."""

    correction: Correction = "holm"
    margin: float = 0.005


@contextmanager
def opened(source: str) -> Iterator[Store]:
    """The results in a folder, or in a git revision: ``REV`` or ``REV:PATH``, the path from the repository's root."""
    if Path(source).is_dir():
        yield _with_results(Store(Path(source)), source)
        return
    revision, _, path = source.partition(":")
    try:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
        root = _git("rev-parse", "--show-toplevel").decode().strip()
    except (subprocess.CalledProcessError, OSError):
        raise InputError(
            f"{source!r} is neither a results folder nor a revision of the git repository here. "
            f"Expected: a folder, REVISION (of {REFERENCE}), or REVISION:PATH."
        ) from None
    path = path.strip("/") or REFERENCE
    try:
        content = _git("archive", "--format=tar", commit, "--", path, folder=root)
    except subprocess.CalledProcessError:
        raise InputError(
            f"revision {revision!r} has no {path!r}. Give its path from the root: REVISION:PATH."
        ) from None
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
        yield _with_results(Store(Path(folder) / path), source)


def changes(a: Store, b: Store, judging: Judging) -> list[Change]:
    """Every cell of either, in the order of dataset, X and method."""
    old, new = _sides(a), _sides(b)
    found = [
        _change(key, old.get(key), new.get(key), judging.margin) for key in sorted(old.keys() | new.keys(), key=_order)
    ]
    elsewhere = {side: {(k.dataset, k.shots, k.method) for k in keys} for side, keys in (("A", old), ("B", new))}
    found = [_explained(change, elsewhere) for change in found]
    tested = [change for change in found if change.difference and change.verdict == "same"]
    corrected = correct([_p(change) for change in tested], judging.correction)
    verdicts = {id(change): p for change, p in zip(tested, corrected, strict=True)}
    return [_judged(change, verdicts[id(change)]) if id(change) in verdicts else change for change in found]


def _order(key: Key) -> tuple[str, float, str, str]:
    return key.dataset, math.inf if key.shots == "all" else key.shots, key.method, str(key)


@dataclass(frozen=True)
class _Side:
    """The records of one configuration of a method, and how many ``older`` ones there are beside it."""

    store: Store
    records: tuple[Record, ...]
    older: int

    def drawn(self) -> Drawn:
        """Draw -> AP ``[Q,2]``, queries in the order of their ids."""
        done = [record for record in self.records if record.status == "done"]
        frames = {record.cell.draw: self.store.average_precision(record) for record in done}
        return {draw: frame.sort_values("query")[list(DIRECTIONS)].to_numpy() for draw, frame in frames.items()}


def _sides(store: Store) -> dict[Key, _Side]:
    """What a store has of each cell of a table; of several configurations, the one finished last."""
    found: dict[Key, dict[str, list[Record]]] = {}
    for record in store.records():
        cell = record.cell
        key = Key(cell.dataset, cell.shots, cell.method, cell.encoder, cell.gallery, cell.split)
        configuration = cell.model_copy(update={"draw": 0}).digest
        found.setdefault(key, {}).setdefault(configuration, []).append(record)
    return {
        key: _Side(store, tuple(max(several.values(), key=_finished)), len(several) - 1)
        for key, several in found.items()
    }


def _finished(records: Iterable[Record]) -> str:
    return max(record.provenance.finished for record in records)


def _change(key: Key, old: _Side | None, new: _Side | None, margin: float) -> Change:
    if old is None or new is None:
        mean = _mean((old or new).drawn())  # type: ignore[union-attr]
        return Change(key, "only in A", a=mean) if old else Change(key, "only in B", b=mean)
    a, b = old.drawn(), new.drawn()
    unfinished = [record for record in (*old.records, *new.records) if record.status != "done"]
    notes = [f"{record.status}: {record.reason}" for record in unfinished]
    notes += [
        f"{name}: {side.older} older configurations left out" for name, side in (("A", old), ("B", new)) if side.older
    ]
    to = difference("A", b, a, margin)
    verdict: Verdict = "same" if to else "not compared"
    if to and a.keys() == b.keys() and all(np.array_equal(a[draw], b[draw], equal_nan=True) for draw in a):
        verdict = "identical"
    elif to and a.keys() != b.keys():
        notes.append(f"{to.estimate.draws} draws in both, of {len(a)} and {len(b)}")
    return Change(
        key,
        verdict,
        a=_mean(a),
        b=_mean(b),
        difference=to,
        changed=_changed(old.records[0], new.records[0]),
        failed=sum(record.status == "failed" for record in unfinished),
        note="; ".join(dict.fromkeys(notes)),
    )


def _mean(drawn: Drawn) -> float:
    return float(np.nanmean(np.stack(list(drawn.values())))) if drawn else float("nan")


def _changed(old: Record, new: Record) -> tuple[str, ...]:
    names = ("code", "parameters", "features", "protocol")
    return tuple(name for name in names if getattr(old.cell, name) != getattr(new.cell, name))


def _explained(change: Change, elsewhere: dict[str, set[tuple[str, Shots, str]]]) -> Change:
    """Why a cell stands on one side only, where the other has it under other rules."""
    other = {"only in A": "B", "only in B": "A"}.get(change.verdict)
    if other and (change.key.dataset, change.key.shots, change.key.method) in elsewhere[other]:
        return replace(change, note=f"{other} has it with another encoder, gallery or split: not comparable")
    return change


def _p(change: Change) -> float | None:
    to = change.difference
    return None if to is None else to.estimate.p if to.tested else next(iter(to.on_draw.values()))


def _judged(change: Change, p: float | None) -> Change:
    if change.difference is None:
        return change
    verdict: Verdict = "same"
    if p is not None and p <= ALPHA:
        verdict = "better" if change.difference.estimate.mean > 0 else "worse"
    return replace(change, verdict=verdict, difference=replace(change.difference, p_corrected=p))


def _with_results(store: Store, source: str) -> Store:
    if not store.cells.is_dir():
        raise InputError(f"{source!r} holds no results. Expected: a folder that run_bench.py wrote with --results.")
    return store


def _git(*arguments: str, folder: str | None = None) -> bytes:
    return subprocess.run(  # noqa: S603 - what the user gives is no option, for it stands after one that says so
        ["git", *arguments],  # noqa: S607 - git is the user's own
        cwd=folder,
        capture_output=True,
        check=True,
    ).stdout
