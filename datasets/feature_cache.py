"""Features on disk: written once for an encoder and its data, memory-mapped, shared by every method, and checked.

A folder named by a digest holds ``image.npy``, ``text.npy``, ``class_text.npy``, and ``features.json`` with everything
else and the SHA-256 of each array. Spatial tokens and further views lie in folders of their own beside it, named
``DIGEST.tokens7`` and ``DIGEST.views4-seed0``, prepared pictures in ``DIGEST.pixels``: asking for them changes nothing
for who does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

Ensemble = Literal["normalised", "raw"]
FORMAT = 2
ARRAYS = ("image", "text", "class_text", "tokens", "views", "pixels")


class DamagedFeatures(Exception):
    """Cached features that are not what was written; they are to be encoded again."""


@dataclass(frozen=True)
class FeatureOptions:
    """What is wanted of features, beyond the encoder and the data.

    tokens: the side g of the grid of spatial tokens; 0 for none.
    views: how many views of each picture: the usual one, its mirror image, then random crops. seed: of the crops.
    ensemble: a class's text feature is the mean of its prompts' features, each normalised before, or raw.
    pixels: the pictures as the encoder prepares them, for methods that adapt its image tower.
    """

    tokens: int = 0
    views: int = 1
    seed: int = 0
    ensemble: Ensemble = "normalised"
    pixels: bool = False

    @property
    def suffixes(self) -> dict[str, str]:
        """What the folders of tokens, views and pixels are called after the features' own, as far as wanted."""
        named = {
            "tokens": f".tokens{self.tokens}",
            "views": f".views{self.views}-seed{self.seed}",
            "pixels": ".pixels",
        }
        wanted = {"tokens": self.tokens > 0, "views": self.views > 1, "pixels": self.pixels}
        return {name: suffix for name, suffix in named.items() if wanted[name]}

    def extras(self, folder: Path) -> dict[str, Path]:
        """Where tokens, views and pixels of the features in ``folder`` lie, as far as they are wanted."""
        return {name: folder.with_name(folder.name + suffix) for name, suffix in self.suffixes.items()}

    def name(self, folder: Path) -> str:
        """What the features in ``folder``, with what is wanted beside them, are known by."""
        return folder.name + "".join(self.suffixes.values())


@dataclass(frozen=True)
class FeatureSet:
    """Features of N items and C classes, not normalised; memory-mapped. An encoder's are float16.

    image ``[N,d_i]``, text ``[N,d_t]``, label ``[N]`` (indices into ``classes``), ids (N), class_text ``[C,d_t]``: the
    mean over each class's prompts, as ``ensemble`` says; ``[C,0]`` where there are none. joint: images, texts and class
    texts are in one space (then d_i = d_t).
    Logits are ``logit_scale * cosine + logit_bias``. cut_texts: how many of the N texts were longer than the context.
    tokens ``[N,g*g,d_i]``, row by row, and views ``[N,V,d_i]``, of which the first is ``image``: where asked for, as
    are pixels ``[N,3,h,w]``, the pictures as the encoder's preprocessing leaves them.
    digest: the folder's name.
    """

    image: np.ndarray
    text: np.ndarray
    label: np.ndarray
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    class_text: np.ndarray
    logit_scale: float
    digest: str
    tokens: np.ndarray | None = None
    views: np.ndarray | None = None
    pixels: np.ndarray | None = None
    joint: bool = True
    logit_bias: float = 0.0
    cut_texts: int = 0
    ensemble: Ensemble = "normalised"


class _About(BaseModel):
    """What is known of features beside their arrays, as ``features.json`` has it."""

    model_config = ConfigDict(strict=True)

    classes: list[str]
    ids: list[str]
    label: list[int]
    logit_scale: float
    logit_bias: float
    joint: bool
    cut_texts: int
    ensemble: Ensemble


PLAIN = FeatureOptions()


@dataclass(frozen=True)
class Rows:
    """An array of ``count`` rows given block by block, as it may be larger than the memory."""

    count: int
    blocks: Iterable[np.ndarray]

    def save(self, path: Path) -> None:
        """Write the array as .npy."""
        array, start = None, 0
        for block in self.blocks:
            if array is None:
                shape = (self.count, *block.shape[1:])
                array = np.lib.format.open_memmap(path, mode="w+", dtype=block.dtype, shape=shape)
            array[start : start + len(block)] = block
            start += len(block)


def default_cache() -> Path:
    """``$XSHOT_BENCH_CACHE``, else ``~/.cache/xshot-bench``."""
    chosen = os.environ.get("XSHOT_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "xshot-bench"


def open_features(folder: Path, options: FeatureOptions = PLAIN) -> FeatureSet:
    """The features in ``folder`` with the tokens, views and pixels that ``options`` ask for.

    Every array is checked against its digest; `DamagedFeatures` where one does not fit or is not there.
    """
    arrays, content = _read(folder)
    for beside in options.extras(folder).values():
        arrays |= _read(beside)[0]
    try:
        about = _About.model_validate(content).model_dump()
        return FeatureSet(
            image=arrays["image"],
            text=arrays["text"],
            class_text=arrays["class_text"],
            tokens=arrays.get("tokens"),
            views=arrays.get("views"),
            pixels=arrays.get("pixels"),
            label=np.array(about.pop("label"), dtype=np.int64),
            ids=tuple(about.pop("ids")),
            classes=tuple(about.pop("classes")),
            **about,
            digest=folder.name,
        )
    except (ValueError, KeyError) as error:
        raise DamagedFeatures(f"{folder}: {' '.join(str(error).split())[:300]}") from error


def write_features(folder: Path, features: FeatureSet) -> None:
    """Write a folder of features so that it is whole or not there; one that is there already is replaced."""
    content = {
        **{name: getattr(features, name) for name in _About.model_fields},
        "label": features.label.tolist(),
    }
    arrays = {name: getattr(features, name) for name in ARRAYS}
    _write(folder, {name: array for name, array in arrays.items() if array is not None}, content)


def write_extra(folder: Path, name: str, rows: Rows) -> None:
    """Write ``tokens``, ``views`` or ``pixels`` into their folder of `FeatureOptions.extras`."""
    _write(folder, {name: rows}, {})


def _write(folder: Path, arrays: Mapping[str, np.ndarray | Rows], content: Mapping[str, Any]) -> None:
    """Write arrays and what is known beside them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_temporary(folder)))
    try:
        digests = {}
        for name, array in arrays.items():
            path = fresh / f"{name}.npy"
            if isinstance(array, Rows):
                array.save(path)
            else:
                np.save(path, array, allow_pickle=False)
            digests[name] = _sha256(path)
        about = {"format": FORMAT, "arrays": digests, **content}
        (fresh / "features.json").write_text(json.dumps(about), encoding="utf-8")
        remove(folder)
        fresh.replace(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what writes of features in ``folder``, or beside it, left that were killed in their midst."""
    for left in folder.parent.glob(f"{_temporary(folder)}*"):
        remove(left)


def _temporary(folder: Path) -> str:
    """How the name of a folder begins until it is whole."""
    return f".{folder.name[:16]}."


def remove(folder: Path) -> None:
    """Remove a folder, or what stands in its place, if anything does."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """`DamagedFeatures` where a folder of features, tokens, views or pixels is not what was written, or not there."""
    _read(folder)


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a folder, memory-mapped, and what is known beside them."""
    try:
        content = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        return {name: _open_array(folder / f"{name}.npy", sha) for name, sha in content["arrays"].items()}, content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFeatures(f"{folder}: {error}") from error


def _open_array(path: Path, sha: str) -> np.ndarray:
    if _sha256(path) != sha:
        raise ValueError(f"{path.name} is not the file that was written")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
