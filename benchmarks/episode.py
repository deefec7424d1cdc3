"""FeatureSet + split + shots + draw -> what the method may see, and what only the judge may see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench import InputError
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.datasets.features import FeatureSet
from xshot_bench.datasets.splitting import Split
from xshot_bench.methods.base import Modality, Pairs, Task


@dataclass(frozen=True)
class Unlabelled:
    """Items as a method is shown them at test time: ``image [n,d_i]`` and ``text [n,d_t]``, unit rows, no labels."""

    image: Tensor
    text: Tensor

    def __getitem__(self, modality: Modality) -> Tensor:
        return self.image if modality == "image" else self.text


@dataclass(frozen=True)
class Answers:
    """What only the judge sees: ids and labels of queries (Q) and gallery (G).

    pair: the position of each query's own pair in the gallery ``[Q]``, -1 where it is not there.
    """

    query_ids: tuple[str, ...]
    gallery_ids: tuple[str, ...]
    query_label: np.ndarray
    gallery_label: np.ndarray
    pair: np.ndarray


@dataclass(frozen=True)
class Episode:
    """A task with its unlabelled test items, and apart from them the answers."""

    task: Task
    queries: Unlabelled
    gallery: Unlabelled
    answers: Answers


def make_episode(features: FeatureSet, split: Split, setting: Setting, device: str = "cpu") -> Episode:
    """The episode of ``setting``. `InputError` where the split has no such draw or not as many shots."""
    if setting.draw not in split.support:
        raise InputError(f"split {split.name} has no draw {setting.draw}: it has {sorted(split.support)}.")
    if not 0 <= setting.shots <= split.max_shots:
        raise InputError(f"split {split.name} has support for 0 to {split.max_shots} shots, not {setting.shots}.")
    position = {item: i for i, item in enumerate(features.ids)}
    support = split.support[setting.draw]

    def rows(ids: Iterable[str]) -> np.ndarray:
        return np.array([position[i] for i in ids], dtype=np.int64)

    def indices(names: Iterable[str]) -> Tensor:
        return torch.tensor([features.classes.index(name) for name in names], dtype=torch.int64, device=device)

    queries = rows(i for c in split.target for i in split.test[c])
    if setting.gallery == "test":
        gallery = queries
    elif setting.gallery == "train":
        gallery = rows(i for c in split.target for i in split.train[c] if i not in support[c])
    else:
        gallery = rows(i for c in (*split.target, *split.source) for i in split.test[c])

    if not np.isin(features.label[queries], features.label[gallery]).any():
        raise InputError(f"gallery {setting.gallery!r} of split {split.name} has no item of any query's class.")

    target, source = indices(split.target), indices(split.source)
    task = Task(
        source=_pairs(features, rows(i for c in split.source for i in split.train[c]), device),
        support=_pairs(features, rows(i for c in split.target for i in support[c][: setting.shots]), device),
        classes=features.classes,
        class_text=_unit(features.class_text, device),
        source_classes=source,
        target_classes=target,
        validation_classes=indices(split.validation),
        candidates=torch.cat([target, source]) if setting.gallery == "all" else target,
        shots=setting.shots,
        seed=setting.draw,
        scale=features.logit_scale,
    )
    order = {int(row): place for place, row in enumerate(gallery)}
    answers = Answers(
        query_ids=tuple(features.ids[i] for i in queries),
        gallery_ids=tuple(features.ids[i] for i in gallery),
        query_label=features.label[queries],
        gallery_label=features.label[gallery],
        pair=np.array([order.get(int(row), -1) for row in queries]),
    )
    return Episode(task, _unlabelled(features, queries, device), _unlabelled(features, gallery, device), answers)


def _unit(rows: np.ndarray, device: str) -> Tensor:
    return normalize(torch.from_numpy(np.asarray(rows, dtype=np.float32)).to(device), dim=1)


def _unlabelled(features: FeatureSet, rows: np.ndarray, device: str) -> Unlabelled:
    return Unlabelled(_unit(features.image[rows], device), _unit(features.text[rows], device))


def _pairs(features: FeatureSet, rows: np.ndarray, device: str) -> Pairs:
    items = _unlabelled(features, rows, device)
    return Pairs(items.image, items.text, torch.from_numpy(features.label[rows].astype(np.int64)).to(device))
