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
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision, to_grid
from xshot_bench.datasets.encoders.lite0_minilm.heads import Heads
from xshot_bench.datasets.encoders.lite0_minilm.live import live
from xshot_bench.datasets.encoders.lite0_minilm.towers import MAX_TOKENS, SIDE, Towers, preprocess
from xshot_bench.datasets.encoders.live import Live

CODE_VERSION = 1
HEADS_FILE = Path(__file__).with_name("heads.safetensors")


class Lite0MiniLM(Encoder):
    """A locked-tower dual encoder (LiT, Zhai et al., CVPR 2022) that needs no network; far weaker than CLIP.

    Features are 384-d. A spatial token is what the heads make of one position of the 7 x 7 map, as they do of the mean
    over all positions (which ImageNet's classifier can be asked for just as well). So of a picture whose positions are
    all alike every token is the global feature. Else their mean is not: the heads are linear, but for the ConSE part
    and the clipping of their input; with neither it would be.
    """

    # On a CPU its activations stay within the caches; larger batches are slower.
    batch_size = 8
    grid = SIDE // 32
    side = SIDE
    context = MAX_TOKENS

    def __init__(self, towers: Towers, heads_file: Path = HEADS_FILE) -> None:
        self.towers, self.device = towers, str(towers.device)
        if self.device != "cpu":
            self.batch_size = 256
        self.heads_file = heads_file
        heads_digest = hashlib.sha256(heads_file.read_bytes()).hexdigest()
        parts = f"lite0-minilm {CODE_VERSION} {towers.fingerprint()} {heads_digest}"
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        """The encoder; it takes no argument. `InputError` where the packages with its weights are not installed."""
        if argument:
            raise InputError(f"encoder lite0-minilm takes no argument, but got {argument!r}. Write: lite0-minilm")
        if precision != "fp32":
            raise InputError(f"encoder lite0-minilm computes in fp32, not {precision}. Write: lite0-minilm")
        return cls(Towers(device))

    @cached_property
    @torch.inference_mode(False)  # so that gradients can pass through them
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
        """Pictures ``[n,3,224,224]``, bytes, to features ``[n,384]`` and tokens ``[n,tokens^2,384]``."""
        if tokens > self.grid:
            raise InputError(f"lite0-minilm has a {self.grid} x {self.grid} grid of tokens, not {tokens} x {tokens}.")
        maps = self.towers.map(batch)
        image = self._project(maps)
        if not tokens:
            return ImageFeatures(image.cpu())
        positions = self._project(maps.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None])
        return ImageFeatures(image.cpu(), to_grid(positions.unflatten(0, (-1, *maps.shape[2:])), tokens).cpu())

    def _project(self, maps: Tensor) -> Tensor:
        """Maps ``[n,1280,h,w]`` to features ``[n,384]``."""
        with torch.inference_mode():
            features: Tensor = self.heads.image(self.heads.image_input(*self.towers.pool(maps)))
        return features

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to features ``[n,384]``; a text is cut after 256 tokens."""
        with torch.inference_mode():
            features: Tensor = self.heads.text(self.heads.text_input(self.towers.encode_texts(texts)))
        return features.cpu()

    def text_lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text with the marks of its start and end."""
        return self.towers.text_lengths(texts)

    def live(self) -> Live:
        """MiniLM and EfficientNet under their heads; the image tower is convolutional, so it has no attention."""
        return live(self.towers, self.heads)
