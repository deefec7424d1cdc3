"""Image towers of a pair."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from xshot_bench import InputError
from xshot_bench.datasets.encoders import hub
from xshot_bench.datasets.encoders.base import Precision, suggest
from xshot_bench.datasets.encoders.lite0_minilm.towers import SIDE, Towers, preprocess
from xshot_bench.datasets.encoders.pixels import FLOATS, Pixels


class ImageTower(Protocol):
    """Pictures to pooled features. fingerprint, side, batch_size: as an `Encoder` has them."""

    fingerprint: str
    batch_size: int

    @property
    def side(self) -> int: ...

    def preprocess(self, picture: Image.Image) -> Tensor: ...

    def encode(self, batch: Tensor) -> Tensor: ...


class Lite0:
    """EfficientNet-Lite0 of an installed package, 1280-d."""

    side = SIDE

    def __init__(self, device: str) -> None:
        self.towers = Towers(device)
        self.fingerprint = f"lite0 {self.towers.fingerprint()}"
        self.batch_size = 8 if device == "cpu" else 256

    def preprocess(self, picture: Image.Image) -> Tensor:
        return preprocess(picture)

    def encode(self, batch: Tensor) -> Tensor:
        return self.towers.encode_images(batch)[0]


class Timm:
    """A model of timm as ``NAME`` or ``NAME@FILE.safetensors``; its weights are the hub's if no file is given."""

    def __init__(self, argument: str, device: str, precision: Precision) -> None:
        import timm

        self.name, _, file = argument.partition("@")
        if not timm.is_model(self.name):
            raise InputError(f"timm knows no model {self.name!r}. {suggest(self.name, timm.list_models())}")
        self.device, self.precision = device, precision
        self.file = _weights(self.name, file)
        with self.file.open("rb") as opened:
            self.fingerprint = f"timm {self.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}"
        self.batch_size = 32 if device == "cpu" else 256

    @property
    def side(self) -> int:
        return max(self._loaded[2])

    def preprocess(self, picture: Image.Image) -> Tensor:
        return self._loaded[1].to_bytes(picture)

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> Tensor:
        model, pixels, _ = self._loaded
        features: Tensor = model(pixels.to_numbers(batch.to(self.device)).to(FLOATS[self.precision]))
        return features

    @cached_property
    def _loaded(self) -> tuple[Any, Pixels, tuple[int, int]]:
        """The model without its classifier, what prepares its pictures, and its input's sides."""
        import timm
        from timm.data import create_transform, resolve_model_data_config

        try:
            classes = _classes(self.name, self.file)  # as many as in the file, or timm would let weights be missing
            source = {"file": str(self.file), "custom_load": False, "num_classes": classes}
            model = timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=source, num_classes=classes)
            model.reset_classifier(0)
        except Exception as error:  # a file that is not what it says can fail in any way
            raise InputError(
                f"{self.file} cannot be loaded as timm's {self.name}: {hub.why_not(error)}. Expected: its weights."
            ) from error
        config = resolve_model_data_config(model)
        pixels = Pixels.of(create_transform(**config, is_training=False))
        return model.eval().to(self.device, FLOATS[self.precision]), pixels, config["input_size"][1:]


def _classes(name: str, file: Path) -> int:
    """The rows of the classifier in a weights file; 0 if it holds none."""
    import timm
    from safetensors import safe_open

    config = timm.get_pretrained_cfg(name)
    classifier = config.classifier if config else None
    key = f"{classifier if isinstance(classifier, str) else next(iter(classifier or ['']))}.weight"
    with safe_open(file, "pt") as weights:
        return int(weights.get_slice(key).get_shape()[0]) if key in weights.keys() else 0  # noqa: SIM118


def _weights(name: str, file: str) -> Path:
    import timm

    path = Path(file).expanduser()
    if file and not (path.is_file() and path.suffix == ".safetensors"):
        raise InputError(f"there is no file {path} of safetensors. Expected: timm:{name}@/path/to/model.safetensors.")
    if file:
        return path
    config = timm.get_pretrained_cfg(name)
    try:
        if config is None or not config.hf_hub_id:
            raise OSError("there are no weights on the hub")
        return hub.fetched(config.hf_hub_id, "model.safetensors")
    except Exception as error:
        raise InputError(
            f"the weights of timm's {name} are neither cached nor to be had from the network. "
            f"Give a local file: timm:{name}@/path/to/model.safetensors."
        ) from error
