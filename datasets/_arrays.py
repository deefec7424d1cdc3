"""Named arrays from other people's files: NumPy, safetensors, MATLAB (v5, v7.3), HDF5, text. Nothing is unpickled."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets._folder import read_lines
from xshot_bench.datasets.scratch import put_away

if TYPE_CHECKING:
    from collections.abc import Iterator

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_SUFFIXES = (".h5", ".hdf5", ".h5py", ".hdf")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".dill")
MOST_BYTES, MOST_TIMES = 2**30, 100  # a compressed array that is larger than both, times its file, is refused
COMPRESSED = 15  # a part of a MATLAB file, v5
SUFFIXES = (".npz", ".npy", ".safetensors", ".mat", ".txt", *HDF5_SUFFIXES)


@dataclass(frozen=True)
class Arrays:
    """The arrays of one file. ``keys`` are known at once, an array is read when it is asked for; large ones are mapped.

    A file of one array without a name (.npy, .txt) has the key "".
    """

    path: Path
    keys: tuple[str, ...]
    read: Callable[[str], np.ndarray]

    def __getitem__(self, key: str) -> np.ndarray:
        """The array named ``key``; `InputError` where there is none, or it is not numbers or texts."""
        if key not in self.keys:
            have = ", ".join(name or "one array without a name" for name in self.keys[:30]) or "none"
            raise InputError(f"{self.path} has no array {key!r}. It has: {have}.")
        with _refusing(self.path):
            array = self.read(key)
        if array.dtype.kind == "O":
            raise InputError(f"{self.path}: {key!r} holds objects (pickled, or a MATLAB struct), which are not read.")
        return put_away(array)


def open_arrays(path: Path) -> Arrays:
    """The arrays of a file, by what its name and first bytes say it is. `InputError` where it cannot be read."""
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run any program when it is loaded, so it is not read. Where you trust it, "
            f"load it yourself and numpy.savez({path.with_suffix('.npz').name!r}, image=..., text=..., label=...)."
        )
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} is none of the kinds that are read: {', '.join(SUFFIXES)}.")
    with _refusing(path):
        with path.open("rb") as file:
            start = file.read(520)
        if path.suffix in HDF5_SUFFIXES or HDF5_MAGIC in (start[:8], start[512:]):
            return _hdf5(path)
        return {
            ".npz": _numpy_archive, ".npy": _numpy, ".safetensors": _safetensors, ".mat": _matlab, ".txt": _text
        }[path.suffix](path)  # fmt: skip


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what readers raise on damaged files into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each library has its own kinds
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path} cannot be read: {reason}. Expected: a whole file of the kind its name says."
        ) from None


def _refuse_bomb(path: Path, size: int) -> None:
    """ValueError for an array of ``size`` bytes that a small file would become."""
    if size > max(MOST_BYTES, MOST_TIMES * path.stat().st_size):
        raise ValueError(f"a part of it would become {size:,} bytes or more. Save it uncompressed where you trust it")


def _numpy_archive(path: Path) -> Arrays:
    def read(key: str) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(path, archive.getinfo(f"{key}.npy").file_size)
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return Arrays(path, tuple(name.removesuffix(".npy") for name in names), read)


def _numpy(path: Path) -> Arrays:
    return Arrays(path, ("",), lambda key: np.load(path, mmap_mode="r", allow_pickle=False))


def _text(path: Path) -> Arrays:
    """Rows of numbers, or a list of names and labels: the arrays ``name`` and ``label``."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    if len(first.split()) == 2 and not _is_number(first.split()[0]):

        def read(key: str) -> np.ndarray:
            rows = [line.rsplit(maxsplit=1) for line in read_lines(path) if line.strip()]
            return np.array([row[0] if key == "name" else float(row[-1]) for row in rows])

        return Arrays(path, ("name", "label"), read)
    comma = "," if "," in first else None
    return Arrays(path, ("",), lambda key: np.loadtxt(path, dtype=np.float32, delimiter=comma, ndmin=2))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _safetensors(path: Path) -> Arrays:
    from safetensors import safe_open

    def read(key: str) -> np.ndarray:
        with safe_open(path, "pt") as file:  # torch, because NumPy has no bfloat16
            tensor = file.get_tensor(key)
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())

    with safe_open(path, "pt") as file:
        return Arrays(path, tuple(file.keys()), read)


def _matlab(path: Path) -> Arrays:
    from scipy.io import loadmat, whosmat

    sizes = {name: 8 * math.prod(shape) for name, shape, _ in whosmat(path)}
    nested = {name for name, _, kind in whosmat(path) if kind in ("cell", "struct", "object")}

    def read(key: str) -> np.ndarray:
        _refuse_bomb(path, _largest_part(path) if key in nested else sizes[key])
        found = loadmat(path, variable_names=[key])[key]
        if hasattr(found, "toarray"):
            found = found.toarray()
        return _strings(found) if found.dtype.kind == "O" else found

    return Arrays(path, tuple(sizes), read)


def _largest_part(path: Path) -> int:
    """The most bytes that a compressed variable of a MATLAB file (v5) becomes: a cell's shape does not tell."""
    largest, most = 0, 2 * max(MOST_BYTES, MOST_TIMES * path.stat().st_size)
    with path.open("rb") as file:
        order = "<II" if file.read(128)[126:] == b"IM" else ">II"
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(order, tag)
            unpack, after = zlib.decompressobj(), file.tell() + size
            given, found = b"", 0
            while (
                kind == COMPRESSED and found < most and (given := given or file.read(min(2**20, after - file.tell())))
            ):
                found += len(unpack.decompress(given, 2**20))
                given = unpack.unconsumed_tail
            largest = max(largest, found)
            file.seek(after)
    return largest


def _strings(cells: np.ndarray) -> np.ndarray:
    """A cell array of texts as an array of texts; any other one stays as it is, and is refused."""
    texts = [cell.item() if isinstance(cell, np.ndarray) and cell.size == 1 else cell for cell in cells.ravel()]
    return np.array(texts) if texts and all(isinstance(text, str) for text in texts) else cells


def _hdf5(path: Path) -> Arrays:
    import h5py

    def read(key: str) -> np.ndarray:
        with h5py.File(path) as file:
            found = file[key]
            if found.is_virtual or found.external:
                raise InputError(f"{path}: {key!r} lies in another file, which is not followed.")
            _refuse_bomb(path, found.nbytes)
            if found.dtype.kind == "O":  # texts of no fixed length
                return np.array(found.asstr()[()], dtype=str) if h5py.check_string_dtype(found.dtype) else found[()]
            array = np.asarray(found[()])
            # MATLAB stores columns first, so a matrix comes out lying on its side
            return array.T if "MATLAB_class" in found.attrs else array

    keys: list[str] = []
    with h5py.File(path) as file:
        _collect(file, "", keys)
    return Arrays(path, tuple(keys), read)


def _collect(group: Any, prefix: str, keys: list[str]) -> None:
    """The names of a group's datasets, those of its subgroups too; links are not followed."""
    import h5py

    for name in group:
        if prefix + name == "#refs#" or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        if isinstance(group[name], h5py.Dataset):
            keys.append(prefix + name)
        elif prefix.count("/") < 8:  # a group may hold itself
            _collect(group[name], f"{prefix}{name}/", keys)
