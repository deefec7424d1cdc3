"""Caltech-101 (Li et al., CVPR-W 2004); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class Caltech101(CoOpDataset):
    """Caltech-101 (Li et al., CVPR-W 2004): 100 classes of objects (--root DIR: CoOp's caltech-101)."""

    name = "caltech101"
    images, listing = "101_ObjectCategories", "split_zhou_Caltech101.json"
    prompts = ("a photo of a {}.",)
    official: Mapping[str, int] = {"train": 4128, "val": 1649, "test": 2465}
    origin = Origin(
        "caltech-101",
        {images: "https://data.caltech.edu/records/mzrjq-6wc02", listing: COOP},
        "Caltech101",
        "caltech101",
    )
