"""Describable Textures (Cimpoi et al., CVPR 2014); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class DTD(CoOpDataset):
    """Describable Textures (Cimpoi et al., CVPR 2014): 47 textures (--root DIR: CoOp's dtd)."""

    name = "dtd"
    images, listing = "images", "split_zhou_DescribableTextures.json"
    prompts = ("{} texture.",)
    official: Mapping[str, int] = {"train": 2820, "val": 1128, "test": 1692}
    origin = Origin("dtd", {images: "https://www.robots.ox.ac.uk/~vgg/data/dtd/", listing: COOP}, "DTD", "dtd/dtd")
