"""The games on which settings of a method are compared: played with validation classes, never with target test items.

The source classes are dealt into folds; each fold in turn plays the target classes (``Task.rehearsal``), and its
held-out pairs are queries and gallery. Without source classes (``kshot``) the split's validation items are both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from xshot_bench import InputError
from xshot_bench.benchmarks import scoring
from xshot_bench.benchmarks.episode import Live, Unlabelled, make_episode
from xshot_bench.benchmarks.live import encoded
from xshot_bench.benchmarks.metrics import average_precision
from xshot_bench.benchmarks.protocol import DIRECTIONS, VERSIONS, Setting
from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.splitting import Protocol, Shots, Split
from xshot_bench.methods import calibration
from xshot_bench.methods.base import Method, Pairs, Task

FOLDS, DRAWS = 4, 2
SHOTS: dict[Protocol, tuple[Shots, ...]] = {"xshot": (0, 1, 5), "kshot": (1, 4, 16), "instance": ("all",)}

Game = tuple[Task, Pairs]  # what is learnt from, and the held-out pairs


@dataclass(frozen=True)
class Rehearsals:
    """All games of a dataset, at each of ``shots``. ``name``: what the features are known by; their digest."""

    features: FeatureSet
    split: Split
    name: str
    shots: tuple[Shots, ...]
    draws: int = DRAWS
    device: str = "cpu"
    live: Live | None = None

    @classmethod
    def of(
        cls, features: FeatureSet, split: Split, name: str, device: str = "cpu", live: Live | None = None
    ) -> Rehearsals:
        """The games that every trial meets. `InputError` where there are no classes or items to play them with."""
        wanted = SHOTS[split.protocol]
        shots = tuple(dict.fromkeys(x if x == "all" else min(x, split.max_shots) for x in wanted))
        found = cls(features, split, name, shots, device=device, live=live)
        if not found.at(shots[-1]):
            raise InputError(
                f"there is nothing to tune on in split {split.name}: it has neither source classes nor validation "
                "items, and test items are not for choosing. Set parameters yourself with --set."
            )
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what the scores of a setting depend on beside the method: features, split and rules."""
        rules = [VERSIONS[self.split.protocol], FOLDS, self.draws, self.shots, calibration.SHARPNESS]
        return hashlib.sha256(json.dumps([self.name, self.split.digest, rules]).encode()).hexdigest()

    def at(self, shots: Shots) -> list[Game]:
        """The games at one X, those of one fold after another."""
        drawn = [
            make_episode(self.features, self.split, Setting(shots, draw), self.device, self.live).task
            for draw in self.split.draws[: self.draws]
        ]
        if not len(drawn[0].source):
            return [game for task in drawn if len(task.validation) for game in task.rehearsals(1)]
        classes = drawn[0].source_classes
        count = min(FOLDS, max(len(classes) // 2, 2))
        folds = [classes[i::count] for i in range(count)]
        return [
            dataclasses.replace(task, validation_classes=fold).rehearsal(draw)
            for fold in folds
            if len(fold) > 1  # of one class nothing can be ranked
            for draw, task in enumerate(drawn)
        ]


def fit_all(method: Method, tasks: Sequence[Task]) -> list[Method]:
    """Fitted copies of the method, in the order of the tasks; if it stacks, those of one shape are fitted at once."""
    if not type(method).stack:
        return [method.fit_many([task])[0] for task in tasks]
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        parts = (task.source, task.support, task.source_classes, task.target_classes, task.labelled.label.unique())
        alike[tuple(map(len, parts))].append(i)
    fitted: dict[int, Method] = {}
    for places in alike.values():
        fitted |= zip(places, method.fit_many([tasks[i] for i in places]), strict=True)
    return [fitted[i] for i in range(len(tasks))]


def mean_ap(method: Method, task: Task, items: Pairs) -> float:
    """mAP@all of ``items`` against each other, the mean of both directions."""
    shown = Unlabelled(items.image, items.text, items.tokens, items.texts, items.pixels)
    task, (seen,) = encoded(method, task, shown)
    label = items.label.cpu().numpy()
    blocks = [torch.cat(list(scoring.score_blocks(method, task, seen, seen, way))).cpu() for way in DIRECTIONS]
    return float(np.mean([np.nanmean(average_precision(scores.numpy(), label, label)) for scores in blocks]))


def rules_of(method: Method) -> Iterator[str]:
    """Each scoring rule that the method knows, while it is set to that rule."""
    if not hasattr(method, "score_by"):
        yield method.scoring
        return
    for rule in ("pairs" if method.scoring == "pairs" else "cosine", "posterior"):
        method.score_by = rule
        yield rule
