"""Real CLIP and its kin, through the library open_clip: ``open_clip:ViT-B-32@laion2b_s34b_b79k`` or a local file."""

from __future__ import annotations

import difflib
import hashlib
import threading
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from xshot_bench import InputError
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, Precision

VERSION = "open_clip/1"  # raise it when features come out differently
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
EXAMPLE = "open_clip:ViT-B-32@/path/to/open_clip_model.safetensors"


@dataclass(frozen=True)
class _Loaded:
    """A model with its weights, and what prepares its inputs."""

    model: Any
    preprocess: Any
    tokenizer: Any


class OpenClip(Encoder):
    """CLIP models of the library open_clip, as open_clip:MODEL@TAG or open_clip:MODEL@FILE.

    Features are the towers' outputs before normalisation. Spatial tokens are in the joint space: of a ViT, every patch
    after ``ln_post`` and the projection; of a ResNet, attention pooling with every position as a query.
    """

    def __init__(self, model_name: str, weights: Path, device: str) -> None:
        self.model_name, self.weights, self.device = model_name, weights, device
        self._lock = threading.Lock()
        self._kept: _Loaded | None = None

    @classmethod
    def open(cls, argument: str, device: str = "cpu", precision: Precision = "fp32") -> Self:
        import open_clip

        model, at, weights = argument.partition("@")
        if not (model and at and weights):
            raise InputError(f"open_clip needs a model and its weights, not {argument!r}. Expected: {EXAMPLE}.")
        if model not in open_clip.list_models():
            raise InputError(f"open_clip knows no model {model!r}. {_closest(model, open_clip.list_models())}")
        if "/" in weights or Path(weights).suffix in (".safetensors", ".pt", ".pth", ".bin"):
            path = Path(weights).expanduser()
            if not path.is_file():
                raise InputError(f"there is no weights file {path}. Give a .safetensors or .pt file, as {EXAMPLE}.")
            return cls(model, path, device)
        tags = open_clip.list_pretrained_tags_by_model(model)
        if weights not in tags:
            raise InputError(f"open_clip has no weights {weights!r} for {model}. {_closest(weights, tags)}")
        return cls(model, _fetched(model, weights), device)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 (hex) of the weights file, the model's name and this file's version."""
        digest = hashlib.sha256(f"{VERSION} {self.model_name} ".encode())
        with self.weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @property
    def has_tokens(self) -> bool:
        """Whether the image tower has positions that can be projected into the joint space."""
        visual = self._loaded.model.visual
        return _is_vit(visual) or _is_resnet(visual)

    @property
    def logit_scale(self) -> float:
        return float(self._loaded.model.logit_scale.detach().exp())

    def preprocess(self, picture: Image.Image) -> Tensor:
        ground = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
        prepared: Tensor = self._loaded.preprocess(flat)
        return prepared

    @torch.inference_mode()
    def encode_images(self, batch: Tensor, tokens: int = 0) -> ImageFeatures:
        model = self._loaded.model
        batch = batch.to(self.device)
        if not tokens:
            return ImageFeatures(model.encode_image(batch).float().cpu())
        if not self.has_tokens:
            raise InputError(f"the image tower of {self.model_name} has no spatial tokens in the joint space.")
        read = _vit_tokens if _is_vit(model.visual) else _resnet_tokens
        image, spatial = read(model.visual, batch)
        return ImageFeatures(image.float().cpu(), spatial.float().cpu())

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        loaded = self._loaded
        features: Tensor = loaded.model.encode_text(loaded.tokenizer(texts).to(self.device))
        return features.float().cpu()

    @property
    def _loaded(self) -> _Loaded:
        with self._lock:
            if self._kept is None:
                self._kept = self._load()
            return self._kept

    def _load(self) -> _Loaded:
        import open_clip

        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                self.model_name, pretrained=str(self.weights), device=self.device, weights_only=True
            )
            tokenizer = open_clip.get_tokenizer(self.model_name)
        except Exception as error:  # a file that is not what it says can fail in any way
            reason = str(error).strip().partition("\n")[0][:200]
            raise InputError(f"{self.weights} cannot be loaded as {self.model_name}: {reason}") from error
        return _Loaded(model.eval(), preprocess, tokenizer)


def _is_vit(visual: nn.Module) -> bool:
    from open_clip.transformer import VisionTransformer

    return isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.proj is not None


def _is_resnet(visual: nn.Module) -> bool:
    from open_clip.modified_resnet import ModifiedResNet

    return isinstance(visual, ModifiedResNet)


def _vit_tokens(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled feature ``[n,d]`` and the projected patches ``[n,P,d]``."""
    hidden = visual.transformer(visual._embeds(batch))
    pooled, patches = visual._pool(hidden)
    if visual.final_ln_after_pool:  # then the pool has not seen the patches
        patches = visual.ln_post(patches)
    return pooled @ visual.proj, patches @ visual.proj


def _resnet_tokens(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Attention pooling in which all positions ask: the mean's answer ``[n,d]`` and the others' ``[n,P,d]``."""
    hidden = visual.stem(batch)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        hidden = layer(hidden)
    pool = visual.attnpool
    positions = hidden.flatten(2).transpose(1, 2)
    positions = torch.cat([positions.mean(1, keepdim=True), positions], dim=1) + pool.positional_embedding

    def heads(projection: nn.Linear) -> Tensor:
        return projection(positions).unflatten(2, (pool.num_heads, -1)).transpose(1, 2)

    mixed = nn.functional.scaled_dot_product_attention(heads(pool.q_proj), heads(pool.k_proj), heads(pool.v_proj))
    answers = pool.c_proj(mixed.transpose(1, 2).flatten(2))
    return answers[:, 0], answers[:, 1:]


def _fetched(model: str, tag: str) -> Path:
    """The weights of a tag, from the hub's cache or the network; `InputError` where neither has them."""
    from huggingface_hub import constants, try_to_load_from_cache
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    config = get_pretrained_cfg(model, tag)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    for name in [file] if file else HUB_FILES:
        cached = try_to_load_from_cache(repository, name) if repository else None
        if isinstance(cached, str):
            return Path(cached)
    try:
        if repository:  # the hub's client would try for most of a minute to reach what cannot be reached
            urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()  # noqa: S310 - the hub's own address
        return Path(download_pretrained(config))
    except Exception as error:
        raise InputError(
            f"the weights {model}@{tag} are neither cached nor to be had from the network. "
            f"Give a local file instead: open_clip:{model}@/path/to/open_clip_model.safetensors."
        ) from error


def _closest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"There are: {', '.join(known[:20])}."
