"""The contract of an encoder: pictures and texts to features, as a rule in one space."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from xshot_bench import InputError
from xshot_bench.datasets.encoders.live import Live

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a batch of n pictures: ``image [n,d]``, and on request ``tokens [n,g*g,d]`` of a g x g grid.

    Neither is normalised; both are in the same space, the tokens row by row from the top left.
    """

    image: Tensor
    tokens: Tensor | None = None


class Encoder(ABC):
    """Turns pictures and texts into features. An encoder is a file in this folder, named for it.

    Making one is cheap (no weights are loaded); weights are loaded when something is first encoded.

    fingerprint: SHA-256 (hex) of what the features depend on: code version, weights, preprocessing, precision.
    logit_scale, logit_bias: cosines become logits as ``logit_scale * cosine + logit_bias`` (a bias as SigLIP has it).
    device: where the towers compute.
    joint: whether pictures and texts are in one space, so that they can be compared by cosine.
    batch_size: pictures in a batch, where the user does not say; halved where memory runs out.
    side: pixels of a side of the tower's square input. grid: side of its grid of spatial tokens, 0 if it has none.
    context: tokens that are read of a text, with the marks of its start and end; 0 is no limit.
    """

    fingerprint: str
    device: str = "cpu"
    logit_bias: float = 0.0
    joint: bool = True
    batch_size: int = 32
    side: int = 224
    grid: int = 0
    context: int = 0

    @classmethod
    @abstractmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        """The encoder that ``name/precision:argument`` asks for; `InputError` where it cannot be had."""

    @property
    @abstractmethod
    def logit_scale(self) -> float: ...

    @abstractmethod
    def preprocess(self, picture: Image.Image) -> Tensor:
        """A picture to the tower's input ``[3,h,w]`` on the CPU; bytes travel best. Called in many places at once."""

    @abstractmethod
    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        """Preprocessed pictures ``[n,3,h,w]`` to features, float32 on the CPU.

        tokens: the side g of the grid of spatial tokens that is wanted, at most ``grid``; 0 for none.
        """

    @abstractmethod
    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to features ``[n,d]``, float32 on the CPU, not normalised. Text beyond the context is cut."""

    def text_lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text before it is cut, counted as ``context`` is."""
        return [len(text.split()) for text in texts]

    def live(self) -> Live | None:
        """The towers with gradients passing through, for methods that learn inside of them; None if it cannot."""
        return None


def parse_encoder(text: str) -> tuple[str, Precision, str]:
    """``name/precision:argument`` to its parts: ``open_clip/bf16:ViT-B-32@openai``. fp32 if it names none."""
    name, _, argument = text.partition(":")
    name, slash, precision = name.partition("/")
    if slash and precision not in get_args(Precision):
        raise InputError(
            f"--encoder {text!r}: there is no precision {precision!r}. There are: {', '.join(get_args(Precision))}."
        )
    return name, cast("Precision", precision or "fp32"), argument


def suggest(word: str, known: list[str]) -> str:
    """What to say of a name that is not among the known ones."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    if not known:
        return "It has none. Give a local file."
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"There are: {', '.join(known[:20])}."


def to_grid(positions: Tensor, side: int) -> Tensor:
    """Positions ``[n,h,w,d]`` averaged to a grid of side x side: ``[n,side*side,d]``."""
    return adaptive_avg_pool2d(positions.permute(0, 3, 1, 2), side).flatten(2).transpose(1, 2)
