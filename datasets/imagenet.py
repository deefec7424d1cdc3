"""ImageNet (Russakovsky et al., IJCV 2015); see _coop.py."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._coop import COOP, CoOpDataset, Listed
from xshot_bench.datasets._folder import read_lines
from xshot_bench.datasets.fetching import Origin
from xshot_bench.datasets.splitting import Part

URL = "https://image-net.org"
PLACES: dict[Part, str] = {"train": "train", "test": "val"}


class ImageNet(CoOpDataset):
    """ImageNet (Russakovsky et al., IJCV 2015): 1,000 classes (--root DIR: CoOp's imagenet).

    The validation images are the test items, as everywhere; so there are none to choose on. CoOp takes a folder's
    images in the order in which the file system gives them, so its draws are its authors' own; here they are sorted.
    """

    name = "imagenet"
    images, listing = "images", "classnames.txt"
    prompts = (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )
    official: Mapping[str, int] = {"train": 1_281_167, "test": 50_000}
    origin = Origin("imagenet", {"images/train": URL, "images/val": URL, listing: COOP})

    @classmethod
    def rows(cls, root: Path) -> Sequence[Listed]:
        """From the folders; classes are numbered in the order of their folders' names, ``n01440764`` and so on."""
        lines = (line.partition(" ") for line in read_lines(root / cls.listing))
        names = {folder.strip(): name.strip() for folder, _, name in lines if folder.strip()}
        numbers = {folder: number for number, folder in enumerate(sorted(names))}
        return [
            Listed(part, f"{place}/{path}", numbers[folder], names[folder])
            for part, place in PLACES.items()
            for folder, path in _images(root / cls.images / place, numbers)
        ]


def _images(place: Path, known: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Folder and path of each image, in order; hidden files are none."""
    folders = sorted(entry.name for entry in os.scandir(place) if entry.is_dir()) if place.is_dir() else []
    unknown = [folder for folder in folders if folder not in known]
    if not folders or unknown:
        problem = f"its folder {unknown[0]!r} is not in classnames.txt" if unknown else "it has no folders of classes"
        raise InputError(
            f"{place} cannot be read as ImageNet: {problem}. Expected: a folder for each class, n01440764."
        )
    for folder in folders:
        for name in sorted(entry.name for entry in os.scandir(place / folder) if not entry.name.startswith(".")):
            yield folder, f"{folder}/{name}"
