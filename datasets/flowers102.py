"""Oxford Flowers (Nilsback and Zisserman, ICVGIP 2008); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class Flowers102(CoOpDataset):
    """Oxford Flowers (Nilsback and Zisserman, ICVGIP 2008): 102 flowers (--root DIR: CoOp's oxford_flowers)."""

    name = "flowers102"
    images, listing = "jpg", "split_zhou_OxfordFlowers.json"
    prompts = ("a photo of a {}, a type of flower.",)
    official: Mapping[str, int] = {"train": 4093, "val": 1633, "test": 2463}
    origin = Origin(
        "oxford_flowers",
        {images: "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", listing: COOP},
        "Flowers102",
        "flowers-102",
    )
