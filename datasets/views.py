"""Several views of a picture: as it is, mirrored, and random crops that depend on nothing but the item and the seed."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from PIL import Image, ImageOps

SCALE = (0.5, 1.0)  # of the area
RATIO = (3 / 4, 4 / 3)  # width to height
TRIES = 10


def view(picture: Image.Image, number: int, item: str, seed: int, side: int) -> Image.Image:
    """View 0 is the picture, 1 its mirror image, the others are random crops, resized to side x side pixels.

    The crops are those of Inception training (Szegedy et al., CVPR 2015; torchvision's RandomResizedCrop): area and
    aspect ratio are random, and the crop is stretched to a square. The first n views are the same for any number.
    """
    if number == 0:
        return picture
    if number == 1:
        return ImageOps.mirror(picture)
    digest = hashlib.sha256(f"{seed}/{number}/{item}".encode()).digest()
    box = random_box(*picture.size, np.random.default_rng(int.from_bytes(digest[:8])))
    return picture.crop(box).resize((side, side), Image.Resampling.BICUBIC)


def random_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random crop; the largest central one of an allowed ratio if none is found."""
    for _ in range(TRIES):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
