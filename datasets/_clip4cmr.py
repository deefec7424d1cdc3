"""The layout of CLIP4CMR's release, which several of its four datasets are passed on in.

split/train.txt, valid.txt, test.txt   "<id>:<label>", labels from 0 or from 1
text/<id>.json                         one JSON string (other copies: texts/)
images/<id>.jpg                        (other copies: <dataset>_image/)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._folder import existing, first_of, inside, read_lines, read_text
from xshot_bench.datasets.splitting import Part

TEXTS = ("text", "texts")
SPLITS: dict[str, Part] = {"train.txt": "train", "valid.txt": "val", "val.txt": "val", "test.txt": "test"}


def is_there(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / "split" / "train.txt").is_file() and first_of(root, *TEXTS) is not None


def candidates(root: Path, classes: Sequence[str]) -> list[Candidate]:
    """The items of all parts. Labels start from the smallest there is; `InputError` where they are not the classes'."""
    images = next((path.name for path in sorted(root.glob("*image*")) if path.is_dir()), None)
    if images is None:
        raise InputError(f"{root} has split/ and text/, and no images/ beside them.")
    lines = [
        (part, f"split/{name} line {number}", line.strip())
        for name, part in SPLITS.items()
        if (root / "split" / name).is_file()
        for number, line in enumerate(read_lines(root / "split" / name), start=1)
        if line.strip()
    ]
    numbers = [int(label) for _, _, line in lines if (label := line.rpartition(":")[2].strip()).isdecimal()]
    base, most = min(numbers, default=0), max(numbers, default=0)
    if base not in (0, 1) or most - base + 1 != len(classes):
        raise InputError(
            f"the labels in {root / 'split'} go from {base} to {most}. Expected: the numbers of {len(classes)} classes."
        )
    texts = existing(root, *TEXTS, what="the texts")
    return [_candidate(root, classes, base, (texts.name, images), line) for line in lines]


def _candidate(
    root: Path, classes: Sequence[str], base: int, folders: tuple[str, str], line: tuple[Part, str, str]
) -> Candidate:
    part, where, said = line
    name, _, label = said.rpartition(":")
    found = Candidate(where, name.strip(), "", "", f"{folders[1]}/{name.strip()}.jpg", part)
    if not (found.id and label.strip().isdecimal()):
        found.problem = "it is not ID:LABEL"
        return found
    found.label = classes[int(label) - base]
    try:
        text = json.loads(read_text(inside(root, f"{folders[0]}/{found.id}.json")))
        if not isinstance(text, str):
            raise ValueError("its file holds no JSON string")
        found.text = text
    except (InputError, ValueError, RecursionError) as error:
        found.problem = f"its text cannot be read ({error})"
    return found
