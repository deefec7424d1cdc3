"""An encoder without weights, for tests of everything around it: pictures by mean colour, texts by colour words."""

from __future__ import annotations

import hashlib
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision

WORDS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "purple": (1, 0, 1),
    "cyan": (0, 1, 1),
    "white": (1, 1, 1),
    "black": (0, 0, 0),
}


class ColourEncoder(Encoder):
    """Mean colours and colour words in one space of four dimensions."""

    fingerprint = hashlib.sha256(b"colours").hexdigest()

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        return cls()

    @property
    def logit_scale(self) -> float:
        return 10.0

    def preprocess(self, picture: Image.Image) -> Tensor:
        small = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX)
        return torch.tensor(small.getpixel((0, 0)), dtype=torch.float32).reshape(3, 1, 1) / 255

    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        return ImageFeatures(_lift(batch.flatten(1)))

    def encode_texts(self, texts: list[str]) -> Tensor:
        colours = [[WORDS[w] for w in text.lower().replace(".", "").split() if w in WORDS] for text in texts]
        return _lift(
            torch.tensor([[sum(c) / max(len(cs), 1) for c in zip(*cs, strict=True)] or [0.5] * 3 for cs in colours])
        )


def _lift(colour: Tensor) -> Tensor:
    return torch.cat([2 * colour - 1, torch.full((len(colour), 1), 0.5)], dim=1)
