"""Features on disk: written once for an encoder and its data, memory-mapped, shared by every method, and checked.

A folder named by a digest holds ``image.npy``, ``text.npy``, ``class_text.npy``, perhaps ``tokens.npy``, and
``features.json`` with everything else and the SHA-256 of each array.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ARRAYS = ("image", "text", "class_text", "tokens", "views")
FORMAT = 1


class DamagedFeatures(Exception):
    """Cached features that are not what was written; they are to be encoded again."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of N items and C classes, not normalised; memory-mapped. An encoder's are float16.

    image ``[N,d_i]``, text ``[N,d_t]``, label ``[N]`` (indices into ``classes``), ids (N), class_text ``[C,d_t]`` (of
    the classes' prompts; ``[C,0]`` where there are none), logit_scale exp(t), tokens ``[N,P,d]`` and views ``[N,V,d]``
    where they were asked for, joint: images, texts and class texts are in one space. digest: the folder's name.
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
    joint: bool = True


def default_cache() -> Path:
    """``$XSHOT_BENCH_CACHE``, else ``~/.cache/xshot-bench``."""
    chosen = os.environ.get("XSHOT_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "xshot-bench"


def open_features(folder: Path) -> FeatureSet:
    """The features in ``folder``, every array checked against its digest; `DamagedFeatures` where one does not fit."""
    try:
        content = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        arrays = {name: _open_array(folder / f"{name}.npy", sha) for name, sha in content["arrays"].items()}
        return FeatureSet(
            image=arrays["image"],
            text=arrays["text"],
            class_text=arrays["class_text"],
            tokens=arrays.get("tokens"),
            views=arrays.get("views"),
            joint=content.get("joint", True),
            label=np.array(content["label"], dtype=np.int64),
            ids=tuple(content["ids"]),
            classes=tuple(content["classes"]),
            logit_scale=float(content["logit_scale"]),
            digest=folder.name,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFeatures(f"{folder}: {error}") from error


def write_features(folder: Path, features: FeatureSet) -> None:
    """Write a folder of features so that it is whole or not there; one that is there already is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}."))
    try:
        digests = {}
        for name in ARRAYS:
            array = getattr(features, name)
            if array is not None:
                np.save(fresh / f"{name}.npy", array, allow_pickle=False)
                digests[name] = _sha256(fresh / f"{name}.npy")
        content = {
            "format": FORMAT,
            "arrays": digests,
            "logit_scale": features.logit_scale,
            "joint": features.joint,
            "classes": features.classes,
            "ids": features.ids,
            "label": features.label.tolist(),
        }
        (fresh / "features.json").write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _open_array(path: Path, sha: str) -> np.ndarray:
    if _sha256(path) != sha:
        raise ValueError(f"{path.name} is not the file that was written")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
