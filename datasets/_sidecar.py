"""Which array is what: a sidecar file of the user's, or else the dumps whose names are known."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets._arrays import PICKLES, SUFFIXES, Arrays, open_arrays
from xshot_bench.datasets._dumps import Block, Reading

NAMES = ("features.toml", "features.json")
PARTS = ("train", "val", "test")
ARRAYS = ("image", "text", "label", "text_label", "ids")
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "file": str, "label_base": int, "classes": list, "joint": bool, "logit_scale": (int, float), "class_text": str
}  # fmt: skip
FIELDS = {*ARRAYS, *(f"{name}_{part}" for name in ARRAYS for part in PARTS)}
NAMES_OF_PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def _twins(image: str, text: str, label: str, text_label: str = "", val: str = "") -> dict[str, str]:
    """The fields of a dump whose test arrays are named as its training arrays are, with ``train`` put for ``*``."""
    named = {"image": image, "text": text, "label": label} | ({"text_label": text_label} if text_label else {})
    words = {"train": "train", "test": "test"} | ({"val": val} if val else {})
    return {f"{name}_{part}": key.replace("*", word) for part, word in words.items() for name, key in named.items()}


# The dumps that are known by the names of their arrays: the first whose arrays are all there.
KNOWN: tuple[dict[str, str], ...] = (
    _twins("image_*", "text_*", "label_*", val="val"),
    _twins("image_*", "text_*", "label_*"),
    {"image": "image", "text": "text", "label": "label"},
    # MARS's wiki.mat, and the HDF5 files *_deep_doc2vec_data*.h5py
    _twins("*_imgs_deep", "*_texts_doc", "*_imgs_labels", "*_texts_labels"),
    _twins("*_imgs_deep", "*_text", "*_imgs_labels", "*_texts_labels", val="valid"),
    _twins("*_imgs_deep", "*_text", "*_imgs_labels", "*_texts_labels"),
    # DSCMR's Pascal Sentence
    _twins("*_img", "*_txt", "*_img_lab"),
    # XMediaNetFeatures.mat: the labels of the training rows stand first in one array
    {"image_train": "I_tr", "image_test": "I_te", "text_train": "T_tr", "text_test": "T_te", "label": "I_labs",
     "text_label": "T_labs"},
    # XMediaFeatures.mat
    {"image_train": "I_tr_CNN", "text_train": "T_tr_BOW", "label_train": "trImgCat", "text_label_train": "trTxtCat",
     "image_test": "I_te_CNN", "text_test": "T_te_BOW", "label_test": "teImgCat", "text_label_test": "teTxtCat"},
)  # fmt: skip


@dataclass
class Sidecar:
    """Fields (``image_train`` …) -> where the array is: KEY of ``file``, FILE of one array, or FILE:KEY."""

    folder: Path
    fields: dict[str, str]
    file: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    _open: dict[Path, Arrays] = field(default_factory=dict)

    def blocks(self) -> dict[str, Block]:
        """The arrays of each part; labels of all parts in one array are cut at the parts' sizes."""
        parts = [part for part in PARTS if any(f"{name}_{part}" in self.fields for name in ARRAYS)] or [""]
        images = {part: self._array("image", part) for part in parts}
        start, blocks = 0, {}
        for part, image in images.items():
            rows = slice(start, start + len(image))
            start = rows.stop
            label, other, ids = (self._labels(name, part, rows) for name in ("label", "text_label", "ids"))
            if label is None:
                raise InputError(f"{self.folder}: the labels of {part or 'the items'} are not named.")
            names = None if ids is None else [str(name) for name in ids.ravel()]
            blocks[part] = Block(image, self._array("text", part), label, other, names)
        for name in ("label", "text_label", "ids"):
            if name in self.fields and len(whole := self._whole(name)) != start:
                raise InputError(f"{self.folder}: {self.fields[name]} has {len(whole)} entries for {start} rows.")
        return blocks

    def reading(self, skip_bad_items: bool, classes: tuple[str, ...] = ()) -> Reading:
        """How the arrays are to be understood; ``classes`` where the sidecar names none."""
        class_text = self.settings.get("class_text")
        return Reading(
            classes=tuple(map(str, self.settings.get("classes", classes))),
            label_base=self.settings.get("label_base"),
            joint=self.settings.get("joint", False),
            logit_scale=float(self.settings.get("logit_scale", 1)),
            class_text=None if class_text is None else self.get(class_text),
            skip_bad_items=skip_bad_items,
        )

    def get(self, where: str) -> np.ndarray:
        """The array that a field's value names."""
        file, colon, key = where.rpartition(":")
        if not colon:
            file, key = (where, "") if Path(where).suffix in (*SUFFIXES, *PICKLES) else (self.file, where)
        path = self.folder / file
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{path} leads outside the folder of the features.")
        if path not in self._open:
            self._open[path] = open_arrays(path)
        return self._open[path][key]

    def _array(self, name: str, part: str) -> np.ndarray:
        where = self.fields.get(f"{name}_{part}".rstrip("_"))
        if where is None:
            raise InputError(f"{self.folder}: the {name}s of {part or 'the items'} are not named.")
        return self.get(where)

    def _labels(self, name: str, part: str, rows: slice) -> np.ndarray | None:
        """What belongs to a part's rows: an array of its own, or those rows of one for all parts."""
        if f"{name}_{part}" in self.fields:
            return self.get(self.fields[f"{name}_{part}"])
        if name not in self.fields:
            return None
        return self._whole(name)[rows]

    def _whole(self, name: str) -> np.ndarray:
        """An array for all parts; a row or column of numbers is a list of them."""
        whole = self.get(self.fields[name])
        return whole.ravel() if 1 in whole.shape else whole


def read_sidecar(path: Path) -> Sidecar:
    """A ``features.toml`` or ``.json``; `InputError` for fields that there are not."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no table of fields. Expected: file, image_train, text_train, label_train, …")
    for name, value in content.items():
        kind = SETTINGS.get(name, str)
        if name not in FIELDS and name not in SETTINGS:
            raise InputError(
                f"{path} has a field {name!r} that there is not. There are: image, text, label, text_label, ids, each "
                f"perhaps with _train, _val or _test, and {', '.join(SETTINGS)}."
            )
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{path}: {name} is {value!r}, which is not of the right kind.")
    fields = {name: value for name, value in content.items() if name in FIELDS}
    return Sidecar(path.parent, fields, content.get("file", ""), content)


def recognise(path: Path) -> Sidecar:
    """The sidecar that a known dump would have: a file, or a folder with one file or one file a part."""
    if path.is_file():
        found = _by_keys(path)
        if found is None:
            have = ", ".join(open_arrays(path).keys[:30])
            raise InputError(
                f"{path} is no dump that is known by its arrays ({have}). Say which is what in a features.toml beside "
                'it: file = "...", image_train = "...", text_train = "...", label_train = "...", and the same for test.'
            )
        return found
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    by_part = _by_part(path, files) or _dadn(path)
    if by_part:
        return by_part
    whole = [file for file in files if file.suffix not in (".txt", ".npy")]
    for file in whole:
        found = _by_keys(file)
        if found:
            return found
    for pickled in sorted(file for file in path.iterdir() if file.suffix in PICKLES):
        open_arrays(pickled)  # says why it is not read
    raise InputError(
        f"{path} has neither features.toml nor a dump that is known by its arrays. Write a features.toml in it, with "
        "file, image_train, text_train, label_train, image_test, text_test, label_test."
    )


def _by_keys(path: Path) -> Sidecar | None:
    keys = set(open_arrays(path).keys)
    fields = next((fields for fields in KNOWN if set(fields.values()) <= keys), None)
    return Sidecar(path.parent, fields, path.name) if fields else None


def _by_part(folder: Path, files: list[Path]) -> Sidecar | None:
    """CLIP4CMR's form: ``clip_train.*`` and ``clip_test.*``, each with image, text, label and perhaps ids."""
    fields: dict[str, str] = {}
    for part, words in NAMES_OF_PARTS.items():
        for file in files:
            if re.fullmatch(rf"(clip_)?({'|'.join(words)})", file.stem):
                keys = open_arrays(file).keys
                if {"image", "text", "label"} <= set(keys):
                    fields |= {
                        f"{k}_{part}": f"{file.name}:{k}" for k in ("image", "text", "label", "ids") if k in keys
                    }
    if not {"image_train", "image_test"} <= set(fields):
        return None
    joint = all(value.startswith("clip_") for value in fields.values())
    return Sidecar(folder, fields, settings={"joint": joint, "logit_scale": 100.0 if joint else 1.0})


def _dadn(folder: Path) -> Sidecar | None:
    """DADN's form: text files of features and of "<name> <label>", row by row; the class word vectors beside them."""
    fields: dict[str, str] = {}
    for part in ("train", "test"):
        fields |= {
            f"image_{part}": f"img_{part}_fea.txt",
            f"text_{part}": f"txt_{part}_fea.txt",
            f"label_{part}": f"img_{part}_list.txt:label",
            f"text_label_{part}": f"txt_{part}_list.txt:label",
            f"ids_{part}": f"img_{part}_list.txt:name",
        }
    if not all((folder / where.partition(":")[0]).is_file() for where in fields.values()):
        return None
    words = {"class_text": "cate_fea.txt"} if (folder / "cate_fea.txt").is_file() else {}
    return Sidecar(folder, fields, settings=words)
