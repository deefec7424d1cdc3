"""The contract of an encoder: pictures and texts to features in one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a batch of n pictures: ``image [n,d]``, and on request ``tokens [n,P,d]`` of their P positions.

    Neither is normalised; both are in the space the texts are in.
    """

    image: Tensor
    tokens: Tensor | None = None


class Encoder(ABC):
    """Turns pictures and texts into features. An encoder is a file in this folder, named for it.

    Making one is cheap (no weights are loaded); weights are loaded when something is first encoded.

    fingerprint: SHA-256 (hex) of what the features depend on: code version, weights' contents, preprocessing.
    logit_scale: exp(t), by which cosines are multiplied to give logits.
    batch_size: pictures in a batch. has_tokens: whether spatial tokens can be had.
    """

    fingerprint: str
    batch_size: int = 32
    has_tokens: bool = False

    @classmethod
    @abstractmethod
    def open(cls, argument: str, device: str = "cpu") -> Self:
        """The encoder that ``name:argument`` asks for; `InputError` where it cannot be had."""

    @property
    @abstractmethod
    def logit_scale(self) -> float: ...

    @abstractmethod
    def preprocess(self, picture: Image.Image) -> Tensor:
        """A picture to the tower's input ``[3,h,w]`` on the CPU. Called from several threads at once."""

    @abstractmethod
    def encode_images(self, batch: Tensor, tokens: bool = False) -> ImageFeatures:
        """Preprocessed pictures ``[n,3,h,w]`` to features, float32 on the CPU."""

    @abstractmethod
    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to features ``[n,d]``, float32 on the CPU, not normalised. Text beyond the context is cut."""
