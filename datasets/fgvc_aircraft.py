"""FGVC-Aircraft (Maji et al., 2013); see _coop.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._coop import PARTS, CoOpDataset, Listed
from xshot_bench.datasets._folder import read_lines
from xshot_bench.datasets.fetching import Origin

URL = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
LISTS = {part: f"images_variant_{part}.txt" for part in PARTS}


class FGVCAircraft(CoOpDataset):
    """FGVC-Aircraft (Maji et al., 2013): 100 variants of aircraft (--root DIR: CoOp's fgvc_aircraft)."""

    name = "fgvc_aircraft"
    images, listing = "images", "variants.txt"
    prompts = ("a photo of a {}, a type of aircraft.",)
    official: Mapping[str, int] = {"train": 3334, "val": 3333, "test": 3333}
    origin = Origin(
        "fgvc_aircraft",
        {images: URL, listing: URL, **dict.fromkeys(LISTS.values(), URL)},
        "FGVCAircraft",
        "fgvc-aircraft-2013b/data",
    )

    @classmethod
    def rows(cls, root: Path) -> Sequence[Listed]:
        """From the official lists, ``0034309 Boeing 707-320`` a line; classes are numbered as in variants.txt."""
        numbers = {name.strip(): number for number, name in enumerate(read_lines(root / cls.listing)) if name.strip()}
        found = []
        for part, file in LISTS.items():
            for line in filter(str.strip, read_lines(root / file)):
                image, _, variant = line.strip().partition(" ")
                if variant not in numbers:
                    raise InputError(f"{root / file}: {variant[:80]!r} is not among the classes of {cls.listing}.")
                found.append(Listed(part, f"{image}.jpg", numbers[variant], variant))
        return found
