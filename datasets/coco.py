"""MS-COCO's captions (Lin et al., ECCV 2014), split by Karpathy; see _captions.py."""

from collections.abc import Mapping

from xshot_bench.datasets._captions import KARPATHY, CaptionDataset
from xshot_bench.datasets.fetching import Origin

URL = "http://images.cocodataset.org/zips/"


class COCO(CaptionDataset):
    """MS-COCO with five captions an image, Karpathy's split (--root DIR: train2014, val2014, dataset_coco.json).

    ``coco`` tests on all 5,000 test images; ``coco/fold1`` to ``coco/fold5`` on a thousand each, whose mean is the
    usual 1K result.
    """

    name = "coco"
    listing, places = "dataset_coco.json", ("images", ".")
    official: Mapping[str, int] = {"train": 566_435, "val": 25_000, "test": 25_000}
    origin = Origin("coco", {"train2014": f"{URL}train2014.zip", "val2014": f"{URL}val2014.zip", listing: KARPATHY})
