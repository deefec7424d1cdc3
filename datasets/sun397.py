"""SUN397 (Xiao et al., CVPR 2010); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class SUN397(CoOpDataset):
    """SUN397 (Xiao et al., CVPR 2010): 397 scenes (--root DIR: CoOp's sun397)."""

    name = "sun397"
    images, listing = "SUN397", "split_zhou_SUN397.json"
    prompts = ("a photo of a {}.",)
    official: Mapping[str, int] = {"train": 15880, "val": 3970, "test": 19850}
    origin = Origin("sun397", {images: "https://vision.princeton.edu/projects/2010/SUN/", listing: COOP}, "SUN397", "")
