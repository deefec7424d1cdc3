"""Random crops against torchvision's, which draw from a global state."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from xshot_bench.datasets.views import RATIO, SCALE, random_box, view

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))


def test_the_first_two_views_are_the_picture_and_its_mirror_image():
    assert view(PICTURE, 0, "a", 0, 32) is PICTURE
    assert view(PICTURE, 1, "a", 0, 32).tobytes() == ImageOps.mirror(PICTURE).tobytes()


def test_a_crop_depends_on_item_number_and_seed_alone():
    asked = [("a", 2, 0), ("a", 3, 0), ("b", 2, 0), ("a", 2, 1)]
    crops = [view(PICTURE, number, item, seed, 32).tobytes() for item, number, seed in asked]
    assert len(set(crops)) == 4
    assert crops == [view(PICTURE, number, item, seed, 32).tobytes() for item, number, seed in asked]


def test_crops_are_distributed_as_torchvisions():
    rng = np.random.default_rng(0)
    ours = np.array([random_box(90, 60, rng) for _ in range(4000)])
    theirs = np.array([RandomResizedCrop.get_params(PICTURE, SCALE, RATIO) for _ in range(4000)])
    top, left, height, width = theirs.T
    theirs = np.stack([left, top, left + width, top + height], 1)
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= 90).all() and (ours[:, 3] <= 60).all()
    assert np.allclose(ours.mean(0), theirs.mean(0), atol=1)
    assert np.allclose(ours.std(0), theirs.std(0), atol=1)


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000)])
def test_of_long_pictures_the_centre_is_taken_as_torchvision_does(size):
    left, top, right, bottom = random_box(*size, np.random.default_rng(0))
    expected = RandomResizedCrop.get_params(Image.new("RGB", size), SCALE, RATIO)
    assert (top, left, bottom - top, right - left) == expected


def test_a_crop_is_stretched_to_a_square():
    found = view(PICTURE, 5, "item", 3, 32)
    boxes = (random_box(90, 60, np.random.default_rng(seed)) for seed in [_seed(3, 5, "item")])
    left, top, right, bottom = next(boxes)
    expected = resized_crop(PICTURE, top, left, bottom - top, right - left, [32, 32], InterpolationMode.BICUBIC)
    assert found.tobytes() == expected.tobytes()


def _seed(seed, number, item):
    import hashlib

    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{item}".encode()).digest()[:8])
