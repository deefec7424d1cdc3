"""FeatureSet + split + shots + draw -> what the method may see, and what only the judge may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench import InputError
from xshot_bench.benchmarks.protocol import Direction, Setting
from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.splitting import Split
from xshot_bench.methods.base import Modality, Pairs, Task
from xshot_bench.methods.task import Pixels, Texts, Towers


@dataclass(frozen=True)
class OnDisk:
    """Some rows ``[n]`` of a memory-mapped array ``[N,...]``, read where they are asked for: float32.

    device: where what was read goes. unit: rows are brought to unit length.
    """

    stored: np.ndarray
    row: np.ndarray
    device: str
    unit: bool

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """The rows in a slice or at positions ``[k]``."""
        some = self.row[index] if isinstance(index, slice) else self.row[index.cpu().numpy()]
        found = torch.from_numpy(self.stored[some]).to(self.device).float()
        return normalize(found, dim=-1) if self.unit else found


@dataclass(frozen=True)
class Unlabelled:
    """Items as a method is shown them at test time, without labels.

    ``image [n,d_i]`` and ``text [m,d_t]``; ``tokens [n,P,d]`` of the images, as the encoder gave them, or None.
    What is on disk is read a block at a time: it may be larger than the memory. texts, pixels: what the towers read of
    them, where the method needs that.
    """

    image: Tensor | OnDisk
    text: Tensor | OnDisk
    tokens: Tensor | OnDisk | None = None
    texts: Texts | None = None
    pixels: Pixels | None = None

    def __getitem__(self, modality: Modality) -> Tensor | OnDisk:
        return self.image if modality == "image" else self.text


@dataclass(frozen=True)
class Key:
    """The answers of one direction: labels of queries ``[Q]`` and gallery ``[G]``, and the gallery's ids (G).

    pair: the position of each query's own pair in the gallery ``[Q]``, -1 where it is not there; None where every
        relevant item counts as its own (``instance``).
    unit: for each query ``[Q]``, the position in ``Answers.query_ids`` of the item that it is counted under.
    """

    gallery_ids: tuple[str, ...]
    query_label: np.ndarray
    gallery_label: np.ndarray
    pair: np.ndarray | None
    unit: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What only the judge sees. ``query_ids``: the items that AP is stored for; ``classes [C']``: the candidates."""

    query_ids: tuple[str, ...]
    classes: np.ndarray
    key: Mapping[Direction, Key]


@dataclass(frozen=True)
class Episode:
    """A task with its unlabelled test items, and apart from them the answers."""

    task: Task
    queries: Unlabelled
    gallery: Unlabelled
    answers: Answers


@dataclass(frozen=True)
class Live:
    """What an episode has for methods that learn inside of the towers: these, and the texts of all items, in order."""

    towers: Towers | None
    texts: tuple[str, ...]


def make_episode(
    features: FeatureSet, split: Split, setting: Setting, device: str = "cpu", live: Live | None = None
) -> Episode:
    """The episode of ``setting``. `InputError` where the split has no such draw or not as many shots."""
    check_setting(split, setting)
    roles = split.roles(setting.shots, setting.draw, setting.gallery)
    cut = _Cut(features, device, live.texts if live else ())
    images, texts = cut.rows(roles.image_queries), cut.rows(roles.text_queries)
    in_images, in_texts = cut.rows(roles.image_gallery), cut.rows(roles.text_gallery)
    if not np.isin(features.label[images], features.label[in_texts]).any():
        raise InputError(f"gallery {setting.gallery!r} of split {split.name} has no item of any query's class.")

    support = cut.pairs(roles.support)
    target = cut.classes(roles.target_classes)
    counts = torch.bincount(support.label, minlength=len(features.classes))[target]
    task = Task(
        source=cut.pairs(roles.source),
        support=support,
        validation=cut.pairs(roles.validation),
        classes=features.classes,
        class_text=cut.unit(features.class_text),
        source_classes=cut.classes(roles.source_classes),
        target_classes=target,
        validation_classes=cut.classes(roles.validation_classes),
        candidates=cut.classes(roles.candidates),
        shots=int(counts.min()),
        seed=setting.draw,
        scale=features.logit_scale,
        joint=features.joint,
        towers=live.towers if live else None,
    )
    key: dict[Direction, Key] = {
        "i2t": _key(features, images, in_texts, images),
        "t2i": _key(features, texts, in_images, images),
    }
    if split.protocol == "instance":
        key = {direction: replace(one, pair=None) for direction, one in key.items()}
    answers = Answers(roles.image_queries, task.candidates.cpu().numpy(), key)
    queries = cut.unlabelled(images, texts)
    same = np.array_equal(images, in_images) and np.array_equal(texts, in_texts)
    return Episode(task, queries, queries if same else cut.unlabelled(in_images, in_texts), answers)


def check_setting(split: Split, setting: Setting) -> None:
    """`InputError` unless the split has such an episode."""
    if setting.draw not in split.draws:
        raise InputError(f"split {split.name} has no draw {setting.draw}: it has {list(split.draws)}.")
    if setting.shots == "all":
        if not split.takes_all:
            raise InputError(f"the protocol {split.protocol!r} has no 'all' shots: give numbers.")
    elif not 0 <= setting.shots <= split.max_shots:
        raise InputError(
            f"split {split.name} has support for at most {split.max_shots} shots a class, not {setting.shots}. "
            f"Ask for fewer with --shots{', or for all' if split.takes_all else ''}."
        )
    if setting.gallery not in split.galleries:
        raise InputError(
            f"the protocol {split.protocol!r} has no gallery {setting.gallery!r}. It has: {', '.join(split.galleries)}."
        )


def _key(features: FeatureSet, queries: np.ndarray, gallery: np.ndarray, counted: np.ndarray) -> Key:
    """The answers of ``queries`` searching ``gallery``, counted under the items ``counted`` (rows, all three)."""
    under = _places(counted, len(features.ids))[queries]
    if (under < 0).any():  # several texts an image: counted under their image
        under = _places(features.label[counted], len(features.classes))[features.label[queries]]
    pair = _places(gallery, len(features.ids))[queries]
    ids = tuple(features.ids[row] for row in gallery)
    return Key(ids, features.label[queries], features.label[gallery], pair, under)


def _places(numbers: np.ndarray, count: int) -> np.ndarray:
    """Where each of ``count`` numbers stands in ``numbers``, ``[count]``; -1 where it does not."""
    places = np.full(count, -1, dtype=np.int64)
    places[numbers] = np.arange(len(numbers))
    return places


class _Cut:
    """Cuts rows out of a FeatureSet: float32, of unit length where the features are joint."""

    def __init__(self, features: FeatureSet, device: str, texts: tuple[str, ...]) -> None:
        self.features, self.device, self.all_texts = features, device, texts
        self.position = {item: i for i, item in enumerate(features.ids)}
        self.number = {name: i for i, name in enumerate(features.classes)}

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        return np.array([self.position[i] for i in ids], dtype=np.int64)

    def classes(self, names: Iterable[str]) -> Tensor:
        return torch.tensor([self.number[name] for name in names], dtype=torch.int64, device=self.device)

    def unit(self, rows: np.ndarray) -> Tensor:
        found = torch.from_numpy(np.require(rows, np.float32, "W")).to(self.device)
        return normalize(found, dim=-1) if self.features.joint else found

    def unlabelled(self, images: np.ndarray, texts: np.ndarray) -> Unlabelled:
        features, joint = self.features, self.features.joint
        return Unlabelled(
            OnDisk(features.image, images, self.device, joint),
            OnDisk(features.text, texts, self.device, joint),
            None if features.tokens is None else OnDisk(features.tokens, images, self.device, unit=False),
            self.texts(texts),
            self.pixels(images),
        )

    def pairs(self, ids: Iterable[str]) -> Pairs:
        rows = self.rows(ids)
        label = torch.from_numpy(self.features.label[rows].astype(np.int64)).to(self.device)
        tokens, views = (
            None if array is None else self.unit(array[rows]) for array in (self.features.tokens, self.features.views)
        )
        image, text = self.unit(self.features.image[rows]), self.unit(self.features.text[rows])
        return Pairs(image, text, label, tokens, views, self.texts(rows), self.pixels(rows))

    def texts(self, rows: np.ndarray) -> Texts | None:
        return Texts(tuple(self.all_texts[row] for row in rows)) if self.all_texts else None

    def pixels(self, rows: np.ndarray) -> Pixels | None:
        stored = self.features.pixels
        return None if stored is None else Pixels(stored, torch.from_numpy(rows))
