"""UCF101 (Soomro et al., 2012); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class UCF101(CoOpDataset):
    """UCF101 (Soomro et al., 2012): 101 actions, the middle frame of each video (--root DIR: CoOp's ucf101)."""

    name = "ucf101"
    images, listing = "UCF-101-midframes", "split_zhou_UCF101.json"
    prompts = ("a photo of a person doing {}.",)
    official: Mapping[str, int] = {"train": 7639, "val": 1898, "test": 3783}
    origin = Origin("ucf101", {images: COOP, listing: COOP})
