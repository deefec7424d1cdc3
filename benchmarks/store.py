"""``results/``: one atomic record for each cell, the one source of truth.

results/cells/<digest>.json               the record; a cell counts as run when this file is whole
results/cells/<digest>.<sha>.parquet      AP and first items of every query, written before the record
results/cells/<digest>.traceback.txt      of a failed cell
results/splits/<digest>.json              the splits that were used
results/id                                what this folder is known by in MLflow
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import ValidationError

from xshot_bench import InputError
from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.records import Record, Result

logger = logging.getLogger(__name__)

TEMPORARY = r"\..+\.[a-z0-9_]{8}"  # how `write_atomically` calls a file until it is whole


class Store:
    """The records in one folder. Reading needs no lock; writing is done inside ``writing()``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self._held = False

    @cached_property
    def _written(self) -> set[str]:
        """The digests of cells that have a file, or had one when this was first asked."""
        return {path.name.partition(".")[0] for path in self.cells.glob("[!.]*")}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for one run. `InputError` where it cannot be written or another run holds it.

        A run that stores nothing leaves no new folder behind.
        """
        try:
            fresh = not self.folder.exists()
            self.cells.mkdir(parents=True, exist_ok=True)
            (self.folder / "splits").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.cells) as probe:
                probe.write(b"x")
                probe.flush()
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise InputError(
                f"another run is writing to {self.folder}. Wait until it ends, or give another folder with --results."
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        self._held = True
        self._sweep()
        try:
            yield
        finally:
            self._held = False
            if fresh:
                self._clear_if_empty()
            lock.release()

    def add(self, result: Result) -> Record:
        """Write a result, its record last; an earlier record of the cell is replaced. Returns the stored record."""
        record, stem = result.record, result.record.cell.digest
        if result.ap:
            sha = hashlib.sha256(result.ap).hexdigest()
            record = record.model_copy(update={"ap_file": f"{stem}.{sha[:12]}.parquet", "ap_sha256": sha})
            self.write(self.cells / record.ap_file, result.ap)
        if result.traceback:
            self.write(self.cells / f"{stem}.traceback.txt", result.traceback.encode())
        self.write(self.cells / f"{stem}.json", record.model_dump_json(indent=1).encode())
        if stem in self._written:  # else nothing is older; to look costs as much as there are cells
            for old in self.cells.glob(f"{stem}.*.parquet"):
                if old.name != record.ap_file:
                    old.unlink(missing_ok=True)
        self._written.add(stem)
        if not result.traceback:
            (self.cells / f"{stem}.traceback.txt").unlink(missing_ok=True)
        return record

    def add_split(self, digest: str, content: str) -> None:
        """Keep a copy of a split that was used; one that was damaged since is written again."""
        path = self.folder / "splits" / f"{digest}.json"
        try:
            kept = path.read_bytes()
        except OSError:
            kept = b""
        if kept != content.encode():
            self.write(path, content.encode())

    def identity(self) -> str:
        """16 hex digits that no other folder has, on no machine, and that move with it. Made inside ``writing()``."""
        path = self.folder / "id"
        with suppress(OSError):
            kept = path.read_bytes().decode("ascii", "replace")
            if re.fullmatch("[0-9a-f]{16}", kept):
                return kept
        made = secrets.token_hex(8)
        self.write(path, made.encode())
        return made

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of this folder so that it is whole or not there; `InputError` where that cannot be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise self._unwritable(error) from error

    def record(self, digest: str) -> Record | None:
        """The record of a cell, None where there is none. A damaged one is reported, set aside and counts as none."""
        path = self.cells / f"{digest}.json"
        if not path.exists():
            return None
        try:
            record = Record.model_validate_json(path.read_bytes())
            if record.cell.digest != digest:
                raise ValueError("it is the record of another cell")
            if record.status == "done" and _sha256(self.cells / record.ap_file) != record.ap_sha256:
                raise ValueError(f"{record.ap_file} is not the file that was written")
            return record
        except (ValueError, OSError) as error:
            self._set_aside(path, error)
            return None

    def records(self, digests: Iterable[str] | None = None) -> list[Record]:
        """The records of the given cells that have one, in that order; of all cells where none are given."""
        if digests is None:
            digests = sorted(path.stem for path in self.cells.glob("*.json"))
        return [record for digest in digests if (record := self.record(digest))]

    def average_precision(self, record: Record) -> pd.DataFrame:
        """AP per query of a done record: columns ``query`` (item id), ``i2t``, ``t2i``; NaN where left out."""
        return pd.read_parquet(self.cells / record.ap_file, columns=["query", *DIRECTIONS])

    def rankings(self, record: Record) -> pd.DataFrame:
        """The same with what stood first in the rankings: see ``records.Result.ap``."""
        return pd.read_parquet(self.cells / record.ap_file)

    def _set_aside(self, path: Path, error: Exception) -> None:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)[:300]
        logger.warning("the record %s is damaged (%s): its cell counts as new", path, reason)
        if self._held:  # else another run may be replacing it at this moment
            kept = path.with_suffix(".json.damaged")
            path.replace(kept)
            logger.warning("the damaged record is kept as %s", kept)

    def _sweep(self) -> None:
        """Remove what writes left that were killed in their midst."""
        for place in ("cells", "splits", "invocations"):
            for path in (self.folder / place).rglob(".*"):
                if re.fullmatch(TEMPORARY, path.name):
                    with suppress(OSError):
                        path.unlink()

    def _clear_if_empty(self) -> None:
        with suppress(OSError):  # the first folder that holds something ends it
            for folder in (self.cells, self.folder / "splits"):
                folder.rmdir()
            if {path.name for path in self.folder.iterdir()} <= {".lock"}:
                (self.folder / ".lock").unlink(missing_ok=True)
                self.folder.rmdir()

    def _unwritable(self, error: OSError) -> InputError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is on a full disk" if full else f"cannot be written to ({error.strerror or error})"
        mend = {errno.EACCES: "Change its permissions or give", errno.EPERM: "Change its permissions or give"}
        todo = "Free some space or give" if full else mend.get(error.errno or 0, "Give")
        return InputError(
            f"the results folder {self.folder} {what}. {todo} another folder with --results; "
            "what was stored before is kept, and the same command goes on from there."
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there, also after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
