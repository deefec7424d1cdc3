"""Text towers of a pair."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from xshot_bench import InputError
from xshot_bench.datasets.encoders import hub
from xshot_bench.datasets.encoders.base import Precision
from xshot_bench.datasets.encoders.lite0_minilm.towers import MAX_TOKENS, Towers
from xshot_bench.datasets.encoders.pixels import FLOATS

TEXT_BATCH = 64


class TextTower(Protocol):
    """Texts to features. fingerprint, context: as an `Encoder` has them; lengths: as its ``text_lengths``."""

    fingerprint: str

    @property
    def context(self) -> int: ...

    def encode(self, texts: list[str]) -> Tensor: ...

    def lengths(self, texts: list[str]) -> list[int]: ...


class MiniLM:
    """all-MiniLM-L6-v2 of an installed package, 384-d, unit rows."""

    context = MAX_TOKENS

    def __init__(self, device: str) -> None:
        self.towers = Towers(device)
        self.fingerprint = f"minilm {self.towers.fingerprint()}"

    def encode(self, texts: list[str]) -> Tensor:
        return self.towers.encode_texts(texts)

    def lengths(self, texts: list[str]) -> list[int]:
        return self.towers.text_lengths(texts)


class HuggingFace:
    """A text model of transformers in safetensors: a local folder, or a name on the hub. Features: token means."""

    def __init__(self, name: str, device: str, precision: Precision) -> None:
        self.name, self.device, self.precision = name, device, precision
        self.folder = _folder(name)
        digest = hashlib.sha256()
        for file in sorted({file for pattern in hub.MODEL_FILES for file in self.folder.glob(pattern)}):
            with file.open("rb") as opened:
                digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
        self.fingerprint = f"hf {digest.hexdigest()}"

    @property
    def context(self) -> int:
        limits = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        return int(min(limit for limit in limits if limit))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        found: dict[int, Tensor] = {}
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), TEXT_BATCH):
            rows = by_length[start : start + TEXT_BATCH]
            inputs = self._tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=self.context, return_tensors="pt"
            ).to(self.device)
            hidden = self._model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][:, :, None]
            found |= zip(rows, (hidden * mask).sum(1) / mask.sum(1).clamp_min(1), strict=True)
        return torch.stack([found[i] for i in range(len(texts))])

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokenizer(texts, truncation=False, verbose=False).input_ids]

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = self._from_folder(AutoTokenizer)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel

        model = self._from_folder(AutoModel, use_safetensors=True)
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        return model.eval().to(self.device, FLOATS[self.precision])

    def _from_folder(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(str(self.folder), local_files_only=True, **options)
        except Exception as error:  # a folder that is not what it says can fail in any way
            raise InputError(
                f"{self.folder} cannot be loaded as a text model of transformers: {hub.why_not(error)}. "
                "Expected: config.json, a tokenizer and model.safetensors."
            ) from error


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    try:
        return hub.model_folder(name)
    except Exception as error:
        raise InputError(
            f"the text model {name!r} is no folder, and neither cached nor to be had from the hub. "
            "Give a local folder with its config.json, tokenizer and model.safetensors: hf:/path/to/folder."
        ) from error
