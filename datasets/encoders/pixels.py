"""A picture's way into a tower, cut in two: the picture to bytes in the workers, the bytes to numbers on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Pixels:
    """The steps of an evaluation transform of torchvision that ends in ToTensor and Normalize.

    Bytes are a quarter of the numbers, so four times as many pictures travel from the workers at once.
    """

    steps: tuple[Any, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, transform: Any) -> Self:
        """The steps of a ``Compose``."""
        *steps, _, normalize = transform.transforms
        return cls(tuple(steps), tuple(map(float, normalize.mean)), tuple(map(float, normalize.std)))

    def to_bytes(self, picture: Image.Image) -> Tensor:
        """A picture, on white if it is transparent, to ``[3,h,w]``, 0 to 255."""
        import numpy as np

        flat = on_white(picture)
        for step in self.steps:
            flat = step(flat)
        return torch.from_numpy(np.array(flat)).permute(2, 0, 1).contiguous()

    def to_numbers(self, batch: Tensor) -> Tensor:
        """Bytes ``[n,3,h,w]`` to the tower's input, float32, where they are."""
        mean, std = (torch.tensor(values, device=batch.device)[:, None, None] for values in (self.mean, self.std))
        return batch.float().div_(255).sub_(mean).div_(std)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
