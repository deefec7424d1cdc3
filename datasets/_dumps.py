"""Published features: which arrays of which files are whose, and one checked table of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate, usable
from xshot_bench.datasets.base import Item
from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.scratch import room, row_blocks
from xshot_bench.datasets.splitting import Part

_Whose = tuple[str, str]  # a part, and image or text


@dataclass(frozen=True)
class Block:
    """Rows of one part as the files have them: image ``[n,d_i]``, text ``[n,d_t]``, label ``[n]`` (class numbers or
    names, or one-hot ``[n,C]``).

    text_label: labels of the texts, where the files have their own. ids: the rows' names, where they have some.
    """

    image: np.ndarray
    text: np.ndarray
    label: np.ndarray
    text_label: np.ndarray | None = None
    ids: Sequence[str] | None = None


@dataclass(frozen=True)
class Reading:
    """How the files are to be understood.

    classes: class names in the order of their numbers, or none. label_base: the number of the first class; None: the
    smallest there is, if that is 0 or 1. class_text: ``[C,d_t]`` where there is one.
    """

    classes: tuple[str, ...] = ()
    label_base: int | None = None
    joint: bool = False
    logit_scale: float = 1.0
    class_text: np.ndarray | None = None
    skip_bad_items: bool = False


@dataclass(frozen=True)
class Dump:
    """Published features that have been checked. ``items`` have no texts."""

    features: FeatureSet
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    digest: str
    notes: tuple[str, ...] = ()


@dataclass
class _Rows:
    """All parts one below the other, float32, with what is listed of each row."""

    image: list[np.ndarray] = field(default_factory=list)
    text: list[np.ndarray] = field(default_factory=list)
    found: list[Candidate] = field(default_factory=list)


def make_dump(blocks: Mapping[str, Block], reading: Reading) -> Dump:
    """The table of all parts (``train``, ``val``, ``test``, or "" for no part).

    A row with a value that is not finite, without a known class or whose image and text have different classes is
    bad. `InputError` where the arrays do not fit each other, or for the bad rows.
    """
    numbers = {}
    for part, block in blocks.items():
        whose = part or "the rows"
        numbers[part, "image"] = _class_numbers(block.label, f"the labels of {whose}")
        if block.text_label is not None:
            numbers[part, "text"] = _class_numbers(block.text_label, f"the text labels of {whose}")
    names = _class_names(numbers, reading)
    rows = _Rows()
    for part, block in blocks.items():
        label = names[part, "image"]
        _add(rows, part, block, (label, names.get((part, "text"), label)))
    first: dict[str, str] = {}
    for row in rows.found:
        if first.setdefault(row.id, row.where) != row.where:
            row.problem = row.problem or f"its id {row.id[:80]!r} is that of {first[row.id]} too"
    good, notes = usable(rows.found, reading.skip_bad_items)
    kept = np.array([not row.problem for row in rows.found])
    classes = reading.classes or tuple(sorted({row.label for row in good}, key=_natural))
    return _checked_dump(rows, kept, classes, reading, notes)


def _add(rows: _Rows, part: str, block: Block, labels: tuple[Sequence[str], Sequence[str]]) -> None:
    """Add the rows of one part, with their images' and texts' labels, and note what is wrong with each."""
    label, other = labels
    image, text = (_matrix(array, f"{kind}s of {part or 'the rows'}") for kind, array in
                   (("image", block.image), ("text", block.text)))  # fmt: skip
    sizes = {"images": len(image), "texts": len(text), "labels": len(label)}
    sizes |= {"text labels": len(other)} if len(other) != len(label) else {}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{count} {kind}" for kind, count in sizes.items())
        side = " An array lies on its side." if len(label) in (image.shape[1], text.shape[1]) else ""
        raise InputError(
            f"the part {part or 'without a name'!r} has {said}. Expected: a row of each for every item.{side}"
        )
    for kind, before, now in (("images", rows.image, image), ("texts", rows.text, text)):
        if before and before[0].shape[1] != now.shape[1]:
            raise InputError(
                f"the {kind} of {part!r} have {now.shape[1]} columns where those before have {before[0].shape[1]}."
            )
    finite = _finite(image) & _finite(text)
    for n, name in enumerate(label):
        where = f"{part} row {n + 1}".strip()
        row = Candidate(where, str(block.ids[n]) if block.ids is not None else where.replace(" row ", "/"), "", name)
        row.part = part
        if not name:
            row.problem = "its label is no class"
        elif name != other[n]:
            row.problem = f"its image has the class {name!r}, its text {other[n]!r}"
        elif not finite[n]:
            row.problem = "it has a value that is not finite"
        rows.found.append(row)
    rows.image.append(image)
    rows.text.append(text)


def _checked_dump(
    rows: _Rows, kept: np.ndarray, classes: tuple[str, ...], reading: Reading, notes: tuple[str, ...]
) -> Dump:
    good = [row for row in rows.found if not row.problem]
    place = {name: number for number, name in enumerate(classes)}
    image, text = _joined(rows.image, kept), _joined(rows.text, kept)
    class_text = np.zeros((len(classes), 0), np.float32)
    if reading.class_text is not None:
        class_text = _matrix(reading.class_text, "the class texts")
        if class_text.shape != (len(classes), text.shape[1]):
            raise InputError(f"class_text is {class_text.shape}, not {(len(classes), text.shape[1])} (classes, text).")
    if reading.joint and image.shape[1] != text.shape[1]:
        raise InputError(
            f"images have {image.shape[1]} columns and texts {text.shape[1]}, so they are in no joint space. "
            "Set joint = false."
        )
    parts = {row.id: cast("Part", row.part) for row in good if row.part}
    digest = hashlib.sha256(json.dumps([[r.id, r.label, r.part] for r in good]).encode())
    digest.update(json.dumps([classes, reading.joint, reading.logit_scale]).encode())
    for array in (image, text, class_text):
        digest.update(repr(array.shape).encode())
        for some in row_blocks(len(array)):
            digest.update(array[some].tobytes())
    features = FeatureSet(
        image=image,
        text=text,
        label=np.array([place[row.label] for row in good], dtype=np.int64),
        ids=tuple(row.id for row in good),
        classes=classes,
        class_text=class_text,
        logit_scale=reading.logit_scale,
        digest="",
        joint=reading.joint,
    )
    return Dump(features, tuple(Item(r.id, "", r.label) for r in good), classes, parts, digest.hexdigest(), notes)


def _matrix(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise InputError(f"{what} are {array.dtype} of shape {array.shape}. Expected: numbers, a row for every item.")
    rows = array.reshape(len(array), math.prod(array.shape[1:]))
    if rows.dtype == np.float32:
        return rows
    single = room(rows.shape)
    with np.errstate(over="ignore"):  # what becomes infinite is refused as that
        for some in row_blocks(len(rows)):
            single[some] = rows[some]
    return single


def _finite(rows: np.ndarray) -> np.ndarray:
    """Of each row ``[n]`` whether all its values are finite."""
    finite = np.empty(len(rows), bool)
    for some in row_blocks(len(rows)):
        finite[some] = np.isfinite(rows[some]).all(1)
    return finite


def _joined(parts: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """The ``kept [n]`` ones of the rows of all parts, one part below the other."""
    if len(parts) == 1 and kept.all():
        return parts[0]
    joined = room((int(kept.sum()), parts[0].shape[1]))
    start = 0
    for part, mask in zip(parts, np.split(kept, np.cumsum([len(part) for part in parts])[:-1]), strict=True):
        for some in row_blocks(len(part)):
            good = part[some][mask[some]]
            joined[start : start + len(good)] = good
            start += len(good)
    return joined


def _class_numbers(array: np.ndarray, what: str) -> np.ndarray:
    """The class of each row ``[n]``: a name, a number as float64, or the column of a one-hot row as int64.

    NaN (-1 for a column) where a row has none or several.
    """
    flat = array.squeeze()
    if flat.ndim == 0:
        flat = flat.reshape(1)
    if flat.dtype.kind == "S":
        flat = np.char.decode(flat, "utf-8", "replace")
    if flat.dtype.kind == "U":
        return np.char.strip(flat).ravel()
    if flat.dtype.kind not in "fiub" or flat.ndim > 2:
        raise InputError(f"{what} are {array.dtype} of shape {array.shape}. Expected: a class for every row.")
    if flat.ndim == 2:
        return np.where((flat > 0).sum(1) == 1, (flat > 0).argmax(1), -1).astype(np.int64)
    return np.where(flat == np.round(flat), flat, np.nan).astype(float)


def _class_names(numbers: Mapping[_Whose, np.ndarray], reading: Reading) -> dict[_Whose, list[str]]:
    """The class name of each row of each part, "" for one that has none; all count from the same number."""
    if all(values.dtype.kind == "U" for values in numbers.values()):
        known = set(reading.classes)
        return {whose: [v if v in known or not known else "" for v in values] for whose, values in numbers.items()}
    if any(values.dtype.kind == "U" for values in numbers.values()):
        raise InputError("some labels are names and some are numbers. Expected: the same in every part.")
    base = 0 if any(values.dtype == np.int64 for values in numbers.values()) else reading.label_base
    if base is None:
        least = min((np.nanmin(v) for v in numbers.values() if np.isfinite(v).any()), default=0.0)
        if least not in (0, 1):
            raise InputError(f"the smallest label is {least:g}. Say with label_base what number the first class has.")
        base = int(least)

    def name(value: float) -> str:
        if np.isnan(value) or value < base:
            return ""
        if not reading.classes:
            return f"class {value:g}"
        return reading.classes[int(value) - base] if value - base < len(reading.classes) else ""

    return {whose: [name(value) for value in values] for whose, values in numbers.items()}


def _natural(name: str) -> tuple[int, str]:
    """``class 9`` before ``class 10``."""
    digits = name.rpartition(" ")[2]
    return (int(digits) if digits.isdecimal() else 0, name)
