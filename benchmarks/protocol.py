"""The rules of the game as data: printed with every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xshot_bench.datasets.splitting import Gallery, Protocol, Shots

# raise a protocol's version when a change of episodes, scoring or metrics changes its numbers
VERSIONS: dict[Protocol, str] = {"xshot": "xshot/1", "kshot": "kshot/1", "instance": "instance/1"}
PROTOCOLS: dict[Protocol, str] = {
    "xshot": "class-disjoint: labelled source items, and X labelled pairs of each target class",
    "kshot": "K labelled pairs of every class, and no source classes (CoOp's, VT-CLIP's)",
    "instance": "each image and its own texts; X = all: the training images' pairs may be learnt from, X = 0: nothing",
}
GALLERIES: dict[Gallery, str] = {
    "test": "the target classes' test items",
    "train": "the target classes' training items that serve as support at no X of the draw (DADN)",
    "all": "the test items of all classes, source classes too (generalised)",
}

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")
RECALL_AT = (1, 5, 10)
RECALLS = tuple(f"{direction}/R_{k}" for direction in DIRECTIONS for k in RECALL_AT)  # as records name them


@dataclass(frozen=True)
class Setting:
    """One episode of a split: how many shots a target class, which draw of them, and what is searched."""

    shots: Shots
    draw: int
    gallery: Gallery = "test"
