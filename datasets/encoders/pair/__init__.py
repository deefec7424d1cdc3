"""Two towers that were never aligned, for pictures and for texts: the setting of classic cross-modal methods."""

from __future__ import annotations

import hashlib
import re
from typing import Self

from PIL import Image
from torch import Tensor

from xshot_bench import InputError
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision
from xshot_bench.datasets.encoders.pair.images import ImageTower, Lite0, Timm
from xshot_bench.datasets.encoders.pair.texts import HuggingFace, MiniLM, TextTower

VERSION = "pair/1"  # raise it when features come out differently
EXPECTED = (
    "pair:timm:MODEL@FILE.safetensors+hf:FOLDER (without @FILE and with a model's name for FOLDER from the hub), or "
    "pair:lite0+minilm"
)


class Pair(Encoder):
    """Unaligned towers, as pair:timm:resnet50+hf:bert-base-uncased, local files too, or pair:lite0+minilm.

    Image features are the pooled features under the classifier, text features the mean over a text's tokens of the last
    layer. They are in different spaces and of different widths, so methods that compare them decline; a class's text
    feature is in the texts' space.
    """

    joint = False
    logit_scale = 1.0

    def __init__(self, image: ImageTower, text: TextTower, precision: Precision) -> None:
        self.image, self.text = image, text
        self.batch_size = image.batch_size
        parts = f"{VERSION} {image.fingerprint} {text.fingerprint} {precision}"
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        match = re.fullmatch(r"(lite0|timm:.+?)\+(minilm|hf:.+)", argument)
        if not match:
            raise InputError(f"pair needs an image and a text tower, not {argument!r}. Expected: {EXPECTED}.")
        image, text = match.groups()
        if precision != "fp32" and not (image.startswith("timm:") and text.startswith("hf:")):
            raise InputError(f"lite0 and minilm compute in fp32, not {precision}. Leave the precision out.")
        encoder = cls(
            Timm(image.removeprefix("timm:"), device, precision) if image != "lite0" else Lite0(device),
            HuggingFace(text.removeprefix("hf:"), device, precision) if text != "minilm" else MiniLM(device),
            precision,
        )
        encoder.device = device
        return encoder

    @property
    def side(self) -> int:  # type: ignore[override]
        return self.image.side

    @property
    def context(self) -> int:  # type: ignore[override]
        return self.text.context

    def preprocess(self, picture: Image.Image) -> Tensor:
        return self.image.preprocess(picture)

    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        """Pictures to ``[n,d_i]``; `InputError` if tokens are asked for."""
        if tokens:
            raise InputError("the towers of a pair have no joint space, so there are no spatial tokens in it.")
        return ImageFeatures(self.image.encode(batch).float().cpu())

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to ``[n,d_t]``."""
        return self.text.encode(texts).float().cpu()

    def text_lengths(self, texts: list[str]) -> list[int]:
        return self.text.lengths(texts)
