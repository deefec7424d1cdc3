"""Real CLIP and its kin, through the library open_clip: ``open_clip:ViT-B-32@laion2b_s34b_b79k`` or a local file."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from xshot_bench import InputError
from xshot_bench.datasets.encoders import hub
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision, to_grid
from xshot_bench.datasets.encoders.live import Live
from xshot_bench.datasets.encoders.open_clip import spatial
from xshot_bench.datasets.encoders.open_clip.live import live
from xshot_bench.datasets.encoders.open_clip.weights import Chosen, choose, only_tensors
from xshot_bench.datasets.encoders.pixels import FLOATS, Pixels

VERSION = "open_clip/2"  # raise it when features come out differently


@dataclass(frozen=True)
class _Loaded:
    """A model with its weights, what prepares its pictures, and its logits' scale and bias."""

    model: Any
    pixels: Pixels
    logit_scale: float
    logit_bias: float


class OpenClip(Encoder):
    """CLIP models of the library open_clip, as open_clip:MODEL@TAG or open_clip:MODEL@FILE.

    Features are the towers' outputs before normalisation; weights and activations are of the precision that is asked
    for. Spatial tokens are in the joint space; `spatial` says of which towers and how.
    """

    def __init__(self, chosen: Chosen, device: str, precision: Precision) -> None:
        self.chosen, self.device, self.precision = chosen, device, precision
        self.batch_size = 32 if device == "cpu" else 256
        size = chosen.config["vision_cfg"]["image_size"]
        self.sides = (size, size) if isinstance(size, int) else tuple(size)
        self.side = max(self.sides)
        self._lock = threading.Lock()
        self._kept: _Loaded | None = None

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        return cls(choose(argument), device, precision)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 (hex) of the weights, the model's configuration, the preprocessing, the precision and this code."""
        parts = [VERSION, self.chosen.config, self.chosen.preprocessing, self.precision]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        with self.chosen.file.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def grid(self) -> int:  # type: ignore[override]
        """Side of the tower's own grid; 0 if it has no tokens in the joint space. Needs no weights."""
        visual = self._bare_tower
        if spatial.no_tokens(visual):
            return 0
        with torch.inference_mode():
            return min(spatial.read(visual, torch.zeros(1, 3, *self.sides, device="meta"))[1].shape[1:3])

    @property
    def context(self) -> int:  # type: ignore[override]
        return int(self.tokenizer.context_length)

    @property
    def logit_scale(self) -> float:
        return self._loaded.logit_scale

    @property
    def logit_bias(self) -> float:  # type: ignore[override]
        """0 but for models of the sigmoid loss (SigLIP, Zhai et al., ICCV 2023)."""
        return self._loaded.logit_bias

    def preprocess(self, picture: Image.Image) -> Tensor:
        """Bytes ``[3,h,w]``, as the model's own transform has them before it makes numbers of them."""
        return self._loaded.pixels.to_bytes(picture)

    @torch.inference_mode()
    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        model = self._loaded.model
        numbers = self._numbers(batch)
        if not tokens:
            return ImageFeatures(model.encode_image(numbers, normalize=False).float().cpu())
        if tokens > self.grid:
            why = spatial.no_tokens(model.visual) or f"its grid is {self.grid} x {self.grid}"
            raise InputError(f"{self.chosen.model} has no {tokens} x {tokens} tokens in the joint space: {why}.")
        image, positions = spatial.read(model.visual, numbers)
        return ImageFeatures(image.float().cpu(), to_grid(positions.float(), tokens).cpu())

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        features: Tensor = self._loaded.model.encode_text(self.tokenizer(texts).to(self.device), normalize=False)
        return features.float().cpu()

    def text_lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text with the marks of its start and end."""
        tokenizer = self.tokenizer
        if hasattr(tokenizer, "tokenizer"):  # one of transformers'
            cleaned = [tokenizer.clean_fn(text) for text in texts]
            return [len(ids) for ids in tokenizer.tokenizer(cleaned, truncation=False, verbose=False).input_ids]
        return [len(tokenizer.encode(text)) + 2 for text in texts]

    def live(self) -> Live:
        """The model's own towers, in the precision that is asked for."""
        loaded = self._loaded
        return live(loaded.model, lambda texts: self.tokenizer(texts).to(self.device), self._numbers)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; `InputError` where it is the hub's and neither cached nor to be had."""
        import open_clip

        name = self.chosen.config["text_cfg"].get("hf_tokenizer_name")
        self._need(name, "tokenizer_config.json")
        try:
            return open_clip.get_tokenizer(self.chosen.model)
        except Exception as error:
            raise InputError(
                f"the tokenizer {name} of {self.chosen.model} cannot be loaded: {hub.why_not(error)}"
            ) from error

    def _numbers(self, batch: Tensor) -> Tensor:
        """Bytes ``[n,3,h,w]`` to the image tower's input."""
        return self._loaded.pixels.to_numbers(batch.to(self.device)).to(FLOATS[self.precision])

    @property
    def _loaded(self) -> _Loaded:
        with self._lock:
            if self._kept is None:
                self._kept = self._load()
            return self._kept

    @torch.inference_mode(False)  # else no gradient could ever pass through what is loaded in that mode
    def _load(self) -> _Loaded:
        import open_clip

        chosen = self.chosen
        self._need(chosen.config["text_cfg"].get("hf_model_name"), "config.json")
        try:
            with only_tensors(chosen.file) as file:
                model, _, transform = open_clip.create_model_and_transforms(
                    chosen.model,
                    pretrained=str(file),
                    force_quick_gelu=chosen.quick_gelu,
                    weights_only=True,
                    **{f"image_{name}": value for name, value in chosen.preprocessing.items()},
                )
        except InputError:
            raise
        except Exception as error:  # a file that is not what it says can fail in any way
            raise InputError(
                f"{chosen.file} cannot be loaded as {chosen.model}: {hub.why_not(error)}. "
                "Expected: that model's weights, as a .safetensors file or a .pt file of tensors."
            ) from error
        scale = float(model.logit_scale.detach().exp())
        bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
        model = model.eval().to(self.device, FLOATS[self.precision])
        return _Loaded(model, Pixels.of(transform), scale, bias)

    @cached_property
    def _bare_tower(self) -> Any:
        """The image tower without weights."""
        from open_clip.model import _build_vision_tower

        config = self.chosen.config
        vision = config["vision_cfg"] | (
            {"timm_model_pretrained": False} if "timm_model_name" in config["vision_cfg"] else {}
        )
        with torch.device("meta"):
            return _build_vision_tower(config["embed_dim"], vision, config["quick_gelu"]).eval()

    def _need(self, name: str | None, file: str) -> None:
        """`InputError` unless a file of the hub's repository ``name`` is cached, local, or can be fetched."""
        if not name or Path(name).is_dir() or hub.cached(name, file):
            return
        try:
            hub.reach()
        except OSError as error:
            raise InputError(
                f"{self.chosen.model} needs {file} of {name!r} from the Hugging Face hub, which is neither cached nor "
                f"to be had from the network. Fetch it where there is one: hf download {name}"
            ) from error
