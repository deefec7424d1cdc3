"""Flickr30k (Young et al., TACL 2014), split by Karpathy; see _captions.py."""

from collections.abc import Mapping

from xshot_bench.datasets._captions import KARPATHY, CaptionDataset
from xshot_bench.datasets.fetching import Origin


class Flickr30k(CaptionDataset):
    """Flickr30k, five captions an image, Karpathy's split (--root DIR: flickr30k-images, dataset_flickr30k.json)."""

    name = "flickr30k"
    listing, places = "dataset_flickr30k.json", ("flickr30k-images", "flickr30k_images", "images", "Images")
    official: Mapping[str, int] = {"train": 145_000, "val": 5_070, "test": 5_000}
    origin = Origin(
        "flickr30k", {"flickr30k-images": "https://shannon.cs.illinois.edu/DenotationGraph/", listing: KARPATHY}
    )
