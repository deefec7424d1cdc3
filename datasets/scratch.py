"""Arrays that may be larger than the memory: a large one lies in a temporary file, memory-mapped."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator

import numpy as np

KEPT = 2**28  # bytes of an array that stay in memory
ROWS = 2**13  # worked on at once


def room(shape: tuple[int, ...], dtype: type | np.dtype = np.float32, kept: int | None = None) -> np.ndarray:
    """An array to be filled, in a file if it takes more than ``kept`` bytes. OSError where the disk is full."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= (KEPT if kept is None else kept):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not the end of the process later
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, 2**20):
                file.write(bytes(min(2**20, size - start)))
        return np.memmap(file, dtype, "r+", shape=shape)


def put_away(array: np.ndarray) -> np.ndarray:
    """The array, in a file if it is large and not in one yet: who lets go of the original has its memory back."""
    if array.nbytes <= KEPT or isinstance(array, np.memmap) or array.dtype.kind == "O":
        return array
    kept = room(array.shape, array.dtype)
    kept[:] = array
    return kept


def row_blocks(rows: int) -> Iterator[slice]:
    """Slices that cover so many rows, each small enough to be worked on in memory."""
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))
