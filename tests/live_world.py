"""A small world whose features are those of a live encoder: a tiny CLIP of open_clip's, from a file."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from cases import World
from far_device import moved_weights
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.datasets.encoders.live import Live
from xshot_bench.datasets.encoders.open_clip import OpenClip
from xshot_bench.datasets.encoders.open_clip.live import live
from xshot_bench.methods.base import Pairs, Task
from xshot_bench.methods.task import Pixels, Texts, Towers

VARIANTS = 40
TEMPLATE = "a photo of a {}."
WORDS = tuple("apple bread cloud drum eagle flute grape horse igloo jar kite lemon mouse nail olive pearl".split())  # noqa: SIM905
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@functools.cache
def encoder(name: str = "live-world") -> OpenClip:
    """The model with random weights, saved to a file and loaded from it."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / f"{name}.json"
        config.write_text(json.dumps(CONFIG))
        open_clip.add_model_config(config)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            state = open_clip.create_model(name).state_dict()
        state = {
            key: 10 * value if "embedding" in key else value for key, value in state.items()
        }  # so that texts differ
        save_file({key: value.contiguous() for key, value in state.items()}, Path(folder) / "weights.safetensors")
        found = OpenClip.open(f"{name}@{folder}/weights.safetensors")
        found.live()
        return found


@functools.cache
def towers(names: tuple[str, ...]) -> Towers:
    return _towers(encoder().live(), names)


def towers_on(device: torch.device, names: tuple[str, ...]) -> Towers:
    """The towers on another device, and what they read as well."""
    loaded = encoder()._loaded
    model = moved_weights(loaded.model, device)
    numbers = lambda batch: loaded.pixels.to_numbers(batch.to(device))  # noqa: E731
    return _towers(live(model, lambda texts: encoder().tokenizer(texts).to(device), numbers), names)


def _towers(found: Live, names: tuple[str, ...]) -> Towers:
    return Towers(found.text, found.image, found.text.vectors, names, (TEMPLATE,))


@functools.cache
def pictures() -> np.ndarray:
    """Of each class so many pictures of its colour with noise, ``[C * VARIANTS,3,16,16]``, bytes."""
    rng = np.random.default_rng(0)
    colours = rng.integers(190, size=(len(WORDS), 1, 3, 1, 1))
    noisy = colours + rng.integers(60, size=(len(WORDS), VARIANTS, 3, 16, 16))
    return noisy.reshape(-1, 3, 16, 16).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class LiveWorld(World):
    """Pictures of one colour a class with noise, texts of the class's word with others; features are the encoder's."""

    def task(self, shots: int, seed: int = 0) -> Task:
        return dataclasses.replace(super().task(shots, seed), towers=towers(self.names))

    def pairs(self, classes: Tensor, per_class: int, generator: torch.Generator) -> Pairs:
        label = classes.repeat_interleave(per_class)
        row = VARIANTS * label + torch.randint(VARIANTS, label.shape, generator=generator)
        pixels = Pixels(pictures(), row)
        others = torch.randint(len(WORDS), (len(label), 2), generator=generator).tolist()
        texts = tuple(f"{self.names[c]} {WORDS[a]} {WORDS[b]}" for c, (a, b) in zip(label, others, strict=True))
        if not len(label):
            empty = torch.empty(0, 24)
            return Pairs(empty, empty, label, texts=Texts(()), pixels=pixels)
        image = normalize(encoder().encode_images(pixels.read()).image, dim=1)
        text = normalize(encoder().encode_texts(list(texts)), dim=1)
        return Pairs(image, text, label, texts=Texts(texts), pixels=pixels)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(WORDS[c] for c in range(self.source_classes + self.target_classes))

    @property
    def class_text(self) -> Tensor:
        return normalize(encoder().encode_texts([TEMPLATE.format(name) for name in self.names]), dim=1)
