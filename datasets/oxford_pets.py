"""Oxford-IIIT Pet (Parkhi et al., CVPR 2012); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin


class OxfordPets(CoOpDataset):
    """Oxford-IIIT Pet (Parkhi et al., CVPR 2012): 37 breeds of cats and dogs (--root DIR: CoOp's oxford_pets)."""

    name = "oxford_pets"
    images, listing = "images", "split_zhou_OxfordPets.json"
    prompts = ("a photo of a {}, a type of pet.",)
    official: Mapping[str, int] = {"train": 2944, "val": 736, "test": 3669}
    origin = Origin(
        "oxford_pets",
        {images: "https://www.robots.ox.ac.uk/~vgg/data/pets/", listing: COOP},
        "OxfordIIITPet",
        "oxford-iiit-pet",
    )
