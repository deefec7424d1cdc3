"""What an encoding has finished, on disk part by part, so that it can be interrupted and goes on."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIGEST = 32  # bytes of the SHA-256 at a part's end
BLOCK = 1024  # rows read at once


@dataclass(frozen=True)
class Parts:
    """A folder of parts: arrays of some consecutive items each, with their SHA-256.

    names: array -> what its files are called. The parts may be of any sizes, as the batches were that made them.
    """

    folder: Path
    names: Mapping[str, str]

    def save(self, rows: range, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of ``rows``; each file is whole or not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            fresh = self.folder / f"{self.names[name]}.new"
            fresh.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
            fresh.replace(self._path(name, rows))

    def finished(self) -> list[range]:
        """The rows of the parts that are there, whole and of every array; in order, without overlap."""
        first = next(iter(self.names.values()))
        found = [re.fullmatch(rf"{re.escape(first)}\.(\d+)-(\d+)\.npy", path.name) for path in self.folder.glob("*")]
        kept: list[range] = []
        for rows in sorted((range(int(m[1]), int(m[2])) for m in found if m), key=lambda rows: rows.start):
            free = not kept or rows.start >= kept[-1].stop
            if free and all(_is_whole(self._path(name, rows)) for name in self.names):
                kept.append(rows)
        return kept

    def blocks(self, name: str, parts: Sequence[range], rows: np.ndarray) -> Iterator[np.ndarray]:
        """An array's ``rows [n]``, in that order, in blocks; ``parts`` have them all."""
        arrays = [np.load(self._path(name, part), mmap_mode="r", allow_pickle=False) for part in parts]
        starts = np.array([part.start for part in parts])
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            places = np.searchsorted(starts, block, side="right") - 1
            yield np.stack([arrays[place][row - starts[place]] for place, row in zip(places, block, strict=True)])

    def _path(self, name: str, rows: range) -> Path:
        return self.folder / f"{self.names[name]}.{rows.start}-{rows.stop}.npy"


def missing(parts: Sequence[range], total: int, size: int) -> list[range]:
    """Batches of at most ``size`` items that fill the gaps between ``parts`` of ``total`` items."""
    batches, start = [], 0
    for part in (*parts, range(total, total)):
        batches += [range(at, min(at + size, part.start)) for at in range(start, part.start, size)]
        start = part.stop
    return batches


def _is_whole(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]
