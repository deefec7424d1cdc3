"""The rules of the game as data: printed with every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VERSION = "xshot/1"  # raise it when a change of episodes, scoring or metrics changes numbers

Gallery = Literal["test", "train", "all"]
GALLERIES: dict[Gallery, str] = {
    "test": "the target classes' test items",
    "train": "the target classes' training items that serve as support at no X of the draw (DADN)",
    "all": "the test items of all classes, source classes too (generalised)",
}

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")


@dataclass(frozen=True)
class Setting:
    """One episode of the ``xshot`` protocol: X shots a target class, one draw of them, one gallery mode."""

    shots: int
    draw: int
    gallery: Gallery = "test"
