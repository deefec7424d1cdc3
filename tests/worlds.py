"""Small made-up worlds whose right answers are known."""

from __future__ import annotations

import numpy as np

from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.xshot import XShotSplit


def make_features(
    classes: int = 8, per_class: int = 14, dim: int = 16, noise: float = 0.5, seed: int = 0
) -> FeatureSet:
    """Gaussian classes whose image and text means are the class's prompt feature; ``noise`` 0 separates perfectly."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((classes, dim))
    label = np.repeat(np.arange(classes), per_class)
    image, text = (centre[label] + noise * rng.standard_normal((len(label), dim)) for _ in range(2))
    return FeatureSet(
        image=image.astype(np.float16),
        text=text.astype(np.float16),
        label=label,
        ids=tuple(f"i{n}" for n in range(len(label))),
        classes=tuple(f"class {c}" for c in range(classes)),
        class_text=centre.astype(np.float16),
        logit_scale=10.0,
        tokens=None,
        digest="made-up",
    )


def make_split(features: FeatureSet, draws: int = 3, shots: int = 3) -> XShotSplit:
    """Even classes are target; the last four items of a class are test items; draws rotate the pool."""
    names = features.classes
    members = {
        name: [i for i, y in zip(features.ids, features.label, strict=True) if names[y] == name] for name in names
    }
    train = {name: tuple(ids[:-4]) for name, ids in members.items()}
    target, source = names[::2], names[1::2]
    support = {d: {name: (train[name] * 2)[d : d + shots] for name in target} for d in range(draws)}
    return XShotSplit(
        name="made-up",
        digest="0" * 64,
        source=source,
        target=target,
        validation=source[::2],
        train=train,
        test={name: tuple(ids[-4:]) for name, ids in members.items()},
        support=support,
    )
