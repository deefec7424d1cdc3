"""Images with several captions each, for instance retrieval: the split files of Karpathy and Fei-Fei (CVPR 2015)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate
from xshot_bench.datasets._filed import FiledDataset, Pictures, listed_pictures
from xshot_bench.datasets._folder import folder_of, read_text
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.fetching import Origin
from xshot_bench.datasets.splitting import Part

KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
PARTS: dict[str, Part] = {"train": "train", "restval": "train", "val": "val", "test": "test"}
CAPTIONS = 5  # of an image, as everywhere; some of COCO have six or seven


class CaptionDataset(FiledDataset):
    """Images with their captions, as Karpathy's ``dataset_*.json`` lists them. No dataset itself.

    Each caption is an item, ``<image>#0`` to ``#4``, with the image's file name as its class; so there are no prompts,
    and methods that need them decline. COCO's ``restval`` images are training images.

    listing: the name of the JSON file. places: the folders that images may lie in, below the dataset's own.
    """

    protocols = ("instance",)
    prompts = ()
    origin: ClassVar[Origin]
    listing: ClassVar[str]
    places: ClassVar[tuple[str, ...]]

    def __init__(self, content: Pictures) -> None:
        super().__init__(content)
        first: dict[Path, int] = {}
        self.picture_of = [first.setdefault(file, index) for index, file in enumerate(content.files)]

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = cls.origin.root(folder_of(options, cls.name, ", ".join(cls.origin.needed)))
        found, notes = _first_captions(cls.captions(root))
        first = found[0].file if found else ""
        there = [name for name in cls.places if (root / name).is_dir()]
        place = next((name for name in there if (root / name / first).exists()), there[0] if there else None)
        if place is None:
            raise InputError(f"{root} has none of the folders {', '.join(cls.places)}. Expected: one, with the images.")
        for candidate in found:
            candidate.file = f"{place}/{candidate.file}"
        content = listed_pictures(root, found, tuple(dict.fromkeys(c.label for c in found)), options, notes)
        return cls(content)

    @classmethod
    def captions(cls, root: Path) -> list[Candidate]:
        """The captions of the lists, in their order; ``file`` is below the folder of images."""
        path = root / cls.listing
        if not path.is_file():
            raise InputError(
                f"{root} has no {cls.listing}. Expected in the folder of {cls.name!r}: {', '.join(cls.origin.needed)}. "
                f"`run_bench.py fetch {cls.name}` says where to get what is missing."
            )
        return list(read_karpathy(path))


def read_karpathy(path: Path) -> Iterator[Candidate]:
    """The captions of a ``dataset_*.json``: ``{"images": [{"filename", "split", "sentences": [{"raw"}]}]}``.

    COCO's images also have the ``filepath`` of their folder.
    """
    try:
        content = json.loads(read_text(path))
        images = content["images"] if isinstance(content, dict) else None
        if not isinstance(images, list) or not images:
            raise ValueError("it has no list of images")
        for number, image in enumerate(images, start=1):
            yield from _of_image(image, number)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"an image has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is no split file of Karpathy's: {reason}. Get it anew from {KARPATHY}") from None


def _of_image(image: Mapping[str, Any], number: int) -> Iterator[Candidate]:
    name, where = str(image["filename"]), f"image {number}"
    file = f"{image['filepath']}/{name}" if image.get("filepath") else name
    part = PARTS.get(image["split"], "")
    problem = "" if part else f"its split is {str(image['split'])[:40]!r}, none of {', '.join(PARTS)}"
    texts: Sequence[str] = [" ".join(str(sentence["raw"]).split()) for sentence in image["sentences"]]
    for place, text in enumerate(texts or [""]):
        yield Candidate(f"{where}, caption {place + 1}", f"{name}#{place}", text, name, file, part, problem)


def _first_captions(found: Sequence[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
    """The first five captions of each image, with notes on those left out and on captions that images share."""
    kept = [candidate for candidate in found if int(candidate.id.rpartition("#")[2]) < CAPTIONS]
    more = len(found) - len(kept)
    at: dict[str, set[str]] = defaultdict(set)
    tested = [candidate for candidate in kept if candidate.part == "test"]
    for candidate in tested:
        at[candidate.text].add(candidate.label)
    shared = sum(len(at[candidate.text]) > 1 for candidate in tested)
    notes = [f"{more} captions after the fifth of their image are left out"] * (more > 0)
    if shared:
        notes.append(
            f"{shared} test captions stand word for word at another test image too; as in the published numbers only "
            "a caption's own image is right, and equal captions are ranked in a random order"
        )
    return kept, tuple(notes)
