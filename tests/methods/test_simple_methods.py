"""The methods that learn little: checked against formulas."""

import dataclasses
import math

import pytest
import torch
from cases import World, fitted, outputs
from torch.nn.functional import normalize

from xshot_bench.methods.clip import Clip
from xshot_bench.methods.prototype import Prototype
from xshot_bench.methods.random import Random


def mean_average_precision(scores: torch.Tensor, relevant: torch.Tensor) -> float:
    """By the definition: the mean over relevant items of (rank among relevant) / (rank)."""
    ranked = relevant.gather(1, scores.argsort(dim=1, descending=True)).double()
    precision = ranked.cumsum(1) / torch.arange(1, ranked.shape[1] + 1)
    return float(((precision * ranked).sum(1) / ranked.sum(1)).mean())


def test_random_scores_the_closed_form_floor():
    world, (n, relevant) = World(target_classes=4), (24, 6)
    items = world.pairs(torch.arange(12, 16), relevant, torch.Generator().manual_seed(3))
    same = items.label[:, None] == items.label
    found = []
    for seed in range(200):
        image, text = (normalize(out, dim=1) for out in outputs(fitted(Random, world.task(0, seed)), items))
        found.append(mean_average_precision(image @ text.T, same))
    harmonic = sum(1 / i for i in range(1, n + 1))
    floor = (relevant - 1) / (n - 1) * (1 - harmonic / n) + harmonic / n
    error = torch.tensor(found).std() / math.sqrt(len(found))
    assert abs(sum(found) / len(found) - floor) < 4 * error
    assert error < 0.004


def test_random_depends_on_the_draw_and_the_modality():
    world = World()
    items = world.test_items(world.task(0))
    first, second = (outputs(fitted(Random, world.task(0, seed)), items)[0] for seed in (0, 1))
    assert not torch.equal(first, second)
    method = fitted(Random, world.task(0))
    assert not torch.equal(method.embed(items.image, "image"), method.embed(items.image, "text"))


def test_clip_is_the_features():
    world = World()
    items = world.test_items(world.task(1))
    image, text = outputs(fitted(Clip, world.task(1)), items)
    assert torch.equal(image, items.image)
    assert torch.equal(text, items.text)


def test_prototype_by_hand():
    task = World().task(shots=1)
    items = World().test_items(task)
    c = 13  # a target class: the second candidate
    centre = {
        m: 0.5 * torch.stack([task.source[m][task.source.label == s].mean(0) for s in range(12)]).mean(0)
        for m in ("image", "text")
    }
    name = normalize(task.class_text[c] - 0.5 * task.class_text[:12].mean(0), dim=0)
    shot = task.support.label == c
    mean = normalize(
        sum(normalize(task.support[m][shot][0] - centre[m], dim=0) for m in ("image", "text")),
        dim=0,
    )
    prototype = normalize(name + 2 * mean, dim=0)
    expected = normalize(items.image - centre["image"], dim=1) @ prototype
    logits = fitted(lambda: Prototype(shots_of="both", centring=0.5, shot_weight=2.0), task).logits(
        items.image, "image"
    )
    torch.testing.assert_close(logits[:, 1], expected)


@pytest.mark.parametrize("shots_of", ["own", "other", "both"])
def test_prototype_uses_the_modality_it_says(shots_of):
    task = World().task(shots=3)
    items = World().test_items(task)
    other_images = dataclasses.replace(task.support, image=task.support.image.flip(0))
    changed = dataclasses.replace(task, support=other_images)
    make = lambda: Prototype(shots_of=shots_of)  # noqa: E731
    moved = [
        not torch.equal(before, after)
        for before, after in zip(outputs(fitted(make, task), items), outputs(fitted(make, changed), items), strict=True)
    ]
    assert moved == {"own": [True, False], "other": [False, True], "both": [True, True]}[shots_of]


def test_prototype_without_shots_is_the_class_text():
    task = World().task(shots=0)
    items = World().test_items(task)
    raw = fitted(lambda: Prototype(centring=0.0), task).logits(items.text, "text")
    torch.testing.assert_close(raw, items.text @ task.class_text[task.candidates].T)


def test_without_a_source_the_shots_give_the_centre():
    task = World().task(shots=3)
    none = task.source_classes[:0]
    alone = dataclasses.replace(task, source=task.source.of(none), source_classes=none, validation_classes=none)
    method = fitted(Prototype, alone)
    for m in ("image", "text"):
        by_class = torch.stack([task.support[m][task.support.label == c].mean(0) for c in task.target_classes])
        torch.testing.assert_close(method.centre[m], by_class.mean(0))
    empty = dataclasses.replace(alone, support=task.support.of(none), shots=0)
    items = World().test_items(task)
    logits = fitted(Prototype, empty).logits(items.text, "text")
    torch.testing.assert_close(logits, items.text @ task.class_text[task.candidates].T)  # nothing known: zero-shot
