"""EuroSAT (Helber et al., JSTARS 2019); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class EuroSAT(CoOpDataset):
    """EuroSAT (Helber et al., JSTARS 2019): ten kinds of land from satellites (--root DIR: CoOp's eurosat)."""

    name = "eurosat"
    images, listing = "2750", "split_zhou_EuroSAT.json"
    prompts = ("a centered satellite photo of {}.",)
    official: Mapping[str, int] = {"train": 13500, "val": 5400, "test": 8100}
    origin = Origin("eurosat", {images: "https://github.com/phelber/EuroSAT", listing: COOP}, "EuroSAT", "eurosat")
