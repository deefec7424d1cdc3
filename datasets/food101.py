"""Food-101 (Bossard et al., ECCV 2014); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class Food101(CoOpDataset):
    """Food-101 (Bossard et al., ECCV 2014): 101 dishes (--root DIR: CoOp's food-101)."""

    name = "food101"
    images, listing = "images", "split_zhou_Food101.json"
    prompts = ("a photo of {}, a type of food.",)
    official: Mapping[str, int] = {"train": 50500, "val": 20200, "test": 30300}
    origin = Origin(
        "food-101",
        {images: "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", listing: COOP},
        "Food101",
        "food-101",
    )
