"""Stanford Cars (Krause et al., ICCV-W 2013); see _coop.py."""

from collections.abc import Mapping

from xshot_bench.datasets._coop import COOP, CoOpDataset
from xshot_bench.datasets.fetching import Origin

CARS = "a copy: https://ai.stanford.edu/~jkrause/cars/car_dataset.html is gone, so torchvision cannot download it"


class StanfordCars(CoOpDataset):
    """Stanford Cars (Krause et al., ICCV-W 2013): 196 models of cars (--root DIR: CoOp's stanford_cars)."""

    name = "stanford_cars"
    images, listing = "", "split_zhou_StanfordCars.json"
    prompts = ("a photo of a {}.",)
    official: Mapping[str, int] = {"train": 6509, "val": 1635, "test": 8041}
    origin = Origin("stanford_cars", {"cars_train": CARS, "cars_test": CARS, listing: COOP})
