"""Flickr8k (Hodosh et al., JAIR 2013), split by Karpathy or by its own lists; see _captions.py."""

from collections.abc import Mapping
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._captions import KARPATHY, CaptionDataset
from xshot_bench.datasets._folder import first_of, read_lines
from xshot_bench.datasets.fetching import Origin
from xshot_bench.datasets.splitting import Part

TOKENS = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
LISTS: dict[str, Part] = {"trainImages": "train", "devImages": "val", "testImages": "test"}


class Flickr8k(CaptionDataset):
    """Flickr8k, five captions an image (--root DIR: Flicker8k_Dataset, dataset_flickr8k.json or Flickr8k_text)."""

    name = "flickr8k"
    listing, places = "dataset_flickr8k.json", ("Flicker8k_Dataset", "Flickr8k_Dataset", "images", "Images")
    official: Mapping[str, int] = {"train": 30_000, "val": 5_000, "test": 5_000}
    origin = Origin("flickr8k", {"Flicker8k_Dataset": "https://forms.illinois.edu/sec/1713398", listing: KARPATHY})

    @classmethod
    def captions(cls, root: Path) -> list[Candidate]:
        """From the JSON, or where there is none from the official lists, which know captions of 92 more images."""
        tokens = first_of(root, *TOKENS)
        return super().captions(root) if tokens is None or (root / cls.listing).is_file() else _official(tokens)


def _official(tokens: Path) -> list[Candidate]:
    """``<image>#0<tab>caption`` a line; the images of each part are in a list of their own."""
    parts: dict[str, Part] = {}
    for name, part in LISTS.items():
        parts |= dict.fromkeys(filter(None, map(str.strip, read_lines(tokens.parent / f"Flickr_8k.{name}.txt"))), part)
    found = []
    for number, line in enumerate(read_lines(tokens), start=1):
        key, tab, text = line.partition("\t")
        image, _, place = key.rpartition("#")
        if line.strip() and not (tab and image and place.isdecimal()):
            raise InputError(f"{tokens}, line {number}: expected <image>#<number>, a tab, and the caption.")
        if image in parts:
            found.append(Candidate(f"line {number}", key, " ".join(text.split()), image, image, parts[image]))
    return found
