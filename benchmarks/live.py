"""The encoder run live in a cell: what methods that learn inside of its towers get, and the features they then make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor

from xshot_bench.benchmarks.episode import Live, Unlabelled
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.datasets.base import Dataset
from xshot_bench.datasets.encoders import live
from xshot_bench.datasets.encoders.base import Encoder, parse_encoder
from xshot_bench.methods.base import MODALITIES, Method, Modality, Pairs, Task
from xshot_bench.methods.task import Towers

Shown = TypeVar("Shown", Pairs, Unlabelled)
ROWS = 256  # items that a method encodes at once


@dataclass(frozen=True)
class LiveEncoder:
    """What a process needs to run an encoder live.

    encoder: as ``--encoder`` names it. texts: of all items, in the order of the features' rows. names: the classes'
    names in words. templates: what prompts are made of.
    """

    encoder: str
    texts: tuple[str, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, encoder: str) -> LiveEncoder:
        texts = tuple(item.text for item in dataset.items)
        return cls(encoder, texts, tuple(map(dataset.in_words, dataset.classes)), dataset.prompts)

    def load(self, plugins: tuple[Path, ...], device: str) -> Live:
        """What an episode has of it; the encoder is loaded once a process. No towers where no gradient passes them."""
        found = _opened(self.encoder, plugins, device)
        if found is None:
            return Live(None, self.texts)
        return Live(Towers(found.text, found.image, found.text.vectors, self.names, self.templates), self.texts)


@lru_cache(maxsize=1)
def _opened(encoder: str, plugins: tuple[Path, ...], device: str) -> live.Live | None:
    name, precision, argument = parse_encoder(encoder)
    found = cast("type[Encoder]", Registry(plugins).load("encoder", name))
    return found.open(argument, device, precision).live()


@torch.no_grad()
def encoded(method: Method, task: Task, *items: Unlabelled) -> tuple[Task, list[Unlabelled]]:
    """The task and items in the features that the fitted method's own towers make; as they are where it adapts none."""
    if type(method).encode is Method.encode:
        return task, list(items)
    source, support = task.source, task.support
    if method.scoring == "posterior":  # which is calibrated on these
        source, support = _adapted(method, task, source), _adapted(method, task, support)
    changed = replace(task, class_text=method.encode_classes(task), source=source, support=support)
    done = {id(part): _adapted(method, task, part) for part in items}  # the gallery may be the queries
    return changed, [done[id(part)] for part in items]


def _adapted(method: Method, task: Task, items: Shown) -> Shown:
    image, text = (_encode(method, task, items, modality) for modality in MODALITIES)
    return replace(items, image=image, text=text)


def _encode(method: Method, task: Task, items: Pairs | Unlabelled, modality: Modality) -> Tensor:
    x, raw = items[modality], items.pixels if modality == "image" else items.texts
    if not len(x):
        return x[:]
    blocks = torch.arange(len(x)).split(ROWS)
    reads = ((x[block], modality, None if raw is None else raw[block].read()) for block in blocks)
    return torch.cat([method.encode(*block, task) for block in reads])
