"""The offline default: frozen EfficientNet-Lite0 and MiniLM towers under two small trained heads (not CLIP)."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from xshot_bench import InputError
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision
from xshot_bench.datasets.encoders.lite0_minilm.heads import Heads
from xshot_bench.datasets.encoders.lite0_minilm.towers import Towers, preprocess

CODE_VERSION = 1
HEADS_FILE = Path(__file__).with_name("heads.safetensors")


class Lite0MiniLM(Encoder):
    """A locked-tower dual encoder (LiT, Zhai et al., CVPR 2022) that needs no network; far weaker than CLIP.

    Both features are 384-d. There are no spatial tokens: the 7 x 7 map has no learnt projection into the space.
    """

    # Its activations stay within the caches; larger batches are slower on a CPU.
    batch_size = 8

    def __init__(self, towers: Towers, heads_file: Path = HEADS_FILE) -> None:
        self.towers = towers
        self.heads_file = heads_file
        heads_digest = hashlib.sha256(heads_file.read_bytes()).hexdigest()
        parts = f"lite0-minilm {CODE_VERSION} {towers.fingerprint()} {heads_digest}"
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        """The encoder; it takes no argument. `InputError` where the packages with its weights are not installed."""
        if argument:
            raise InputError(f"encoder lite0-minilm takes no argument, but got {argument!r}. Write: lite0-minilm")
        return cls(Towers(device))

    @cached_property
    def heads(self) -> Heads:
        """The trained heads, on the towers' device."""
        from safetensors.torch import load_file

        return Heads.from_state(load_file(self.heads_file)).to(self.towers.device)

    @property
    def logit_scale(self) -> float:
        """The temperature that the heads learnt on batches of 256 pairs."""
        return float(self.heads.log_scale.exp())

    def preprocess(self, picture: Image.Image) -> Tensor:
        """A picture on white, padded to a square, 224 x 224."""
        return preprocess(picture)

    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        """Pictures ``[n,3,224,224]`` to features ``[n,384]``; `InputError` if tokens are asked for."""
        if tokens:
            raise InputError("encoder lite0-minilm has no spatial tokens. Use open_clip:MODEL@TAG_OR_FILE for them.")
        with torch.inference_mode():
            features: Tensor = self.heads.image(self.heads.image_input(*self.towers.encode_images(batch)))
        return ImageFeatures(features.cpu())

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to features ``[n,384]``; a text is cut after 256 tokens."""
        with torch.inference_mode():
            features: Tensor = self.heads.text(self.heads.text_input(self.towers.encode_texts(texts)))
        return features.cpu()
