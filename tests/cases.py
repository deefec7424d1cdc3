"""The checks that every method plugin must pass, on a small made-up task. Import them to test your own method::

import pytest
from cases import METHOD_CHECKS          # this folder on the path

@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check):
    check(lambda: MyMethod(strength=0.5))
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.methods.base import (
    MODALITIES,
    Declined,
    EmbeddingMethod,
    Method,
    Modality,
    PairMethod,
    Pairs,
    PosteriorMethod,
    Task,
    require,
)

Factory = Callable[[], Method]


@dataclasses.dataclass(frozen=True)
class World:
    """Gaussian classes whose means are, in each modality, a linear map of the class text.

    per_class: training items a source class. noise: distance of an item from its class mean, which has length 1.
    skew: 0 puts the class means at the class texts, so zero-shot works; 1 puts them at an unrelated linear map.
    validation: validation items a target class. joint: else the modalities are linear maps of this, of other widths
        and scales, without class texts, as feature files are. tokens: spatial tokens an image, where it is joint.

    Without source classes it is a world of the protocol ``kshot``.
    """

    dim: int = 16
    source_classes: int = 12
    target_classes: int = 4
    per_class: int = 8
    noise: float = 0.7
    skew: float = 0.3
    validation: int = 0
    joint: bool = True
    tokens: int = 3

    def task(self, shots: int, seed: int = 0) -> Task:
        """An episode's task; the class means are the same for every seed, the items are not."""
        generator = torch.Generator().manual_seed(seed)
        classes = torch.arange(self.source_classes + self.target_classes)
        source, target = classes[: self.source_classes], classes[self.source_classes :]
        support = self.pairs(target, 7, generator)
        first = torch.cat([torch.arange(shots) + 7 * c for c in range(self.target_classes)])
        return Task(
            source=self.pairs(source, self.per_class, generator),
            support=support.rows(first),
            validation=self.pairs(target, self.validation, torch.Generator().manual_seed(seed + 20_000)),
            classes=tuple(f"class {c}" for c in classes),
            class_text=self.class_text if self.joint else self.class_text[:, :0],
            source_classes=source,
            target_classes=target,
            validation_classes=source[: self.source_classes // 3],
            candidates=target,
            shots=shots,
            seed=seed,
            scale=10.0,
            joint=self.joint,
        )

    def test_items(self, task: Task, per_class: int = 5) -> Pairs:
        """New items of the task's candidate classes."""
        return self.pairs(task.candidates, per_class, torch.Generator().manual_seed(task.seed + 10_000))

    def pairs(self, classes: Tensor, per_class: int, generator: torch.Generator) -> Pairs:
        """``per_class`` pairs of each class, class by class."""
        label = classes.repeat_interleave(per_class)
        features = []
        for modality in MODALITIES:
            noise = torch.randn(len(label), self.dim, generator=generator) / self.dim**0.5
            features.append(normalize(self.means(modality)[label] + self.noise * noise, dim=1))
        image, text = features
        if not self.joint:
            return Pairs(5 * image @ _map(self.dim, 20) + 1, text @ _map(self.dim, 12) - 2, label)
        around = torch.randn(len(label), self.tokens, self.dim, generator=torch.Generator().manual_seed(0))
        return Pairs(image, text, label, normalize(image[:, None] + around / self.dim**0.5, dim=2))

    def means(self, modality: Modality) -> Tensor:
        """The class means ``[C,d]``, unit rows."""
        generator = torch.Generator().manual_seed(1 + MODALITIES.index(modality))
        map_, _ = torch.linalg.qr(torch.randn(self.dim, self.dim, generator=generator))
        return normalize((1 - self.skew) * self.class_text + self.skew * self.class_text @ map_, dim=1)

    @property
    def class_text(self) -> Tensor:
        count = self.source_classes + self.target_classes
        return normalize(torch.randn(count, self.dim, generator=torch.Generator().manual_seed(0)), dim=1)


def world_of(make: Factory, **changes: Any) -> World:
    """A world that has what the method needs: with a live encoder (live_world.py), unless it is of feature files."""
    if "towers" in make().required and changes.get("joint", True):
        from live_world import LiveWorld

        return LiveWorld(**changes)
    return World(**changes)


def outputs(method: Method, items: Pairs, task: Task | None = None) -> list[Tensor]:
    """What a fitted method says of ``items``: embeddings or logits of both modalities, or the pairs' scores.

    task: that it was fitted to, where it may adapt the encoder's towers.
    """
    with torch.no_grad():
        if task:
            image = method.encode(items.image, "image", items.pixels and items.pixels.read(), task)
            text = method.encode(items.text, "text", items.texts and items.texts.read(), task)
            items = dataclasses.replace(items, image=image, text=text)
        if method.scoring == "cosine":
            assert isinstance(method, EmbeddingMethod)
            return [method.embed(items[m], m) for m in MODALITIES]
        if method.scoring == "posterior":
            assert isinstance(method, PosteriorMethod)
            return [method.logits(items[m], m) for m in MODALITIES]
        assert isinstance(method, PairMethod)
        return [method.score(items.image, items.text, items.tokens)]


def compared(method: Method, items: Pairs, task: Task | None = None) -> Tensor:
    """What the method's ranking rests on: cosines ``[n,n]``, centred logits of both modalities, or the pairs' scores.

    It leaves open what a method may leave open: the signs and the rotation of an embedding, a constant of a logit row.
    """
    first, *second = outputs(method, items, task)
    if method.scoring == "cosine":
        return normalize(first, dim=1) @ normalize(second[0], dim=1).T
    if method.scoring == "posterior":
        logits = torch.cat([first, *second])
        logits = logits - logits.mean(1, keepdim=True)
        return logits / logits.square().mean().sqrt().clamp_min(1e-6)
    return first


def fitted(make: Factory, task: Task) -> Method | None:
    """A fitted method, or None where it declines the task, by what it needs or in ``fit``; it must say why."""
    method = make()
    try:
        require(method, task)
        method.fit(task)
    except Declined as reason:
        assert str(reason), "a method that declines says why"
        return None
    return method


def check_works_at_every_shot(make: Factory) -> None:
    """0, 1 and 5 shots give finite output of the declared shape; a single shot may not be declined."""
    world = world_of(make)
    for shots in (0, 1, 5):
        for task in (world.task(shots), _generalised(world.task(shots))):
            items = world.test_items(task)
            method = fitted(make, task)
            assert method is not None or shots == 0, f"declined {shots} shots"
            if method is not None:
                _check_outputs(method, task, items)


def check_few_classes_and_items(make: Factory) -> None:
    """A single target class, a single source class and a single query: taken, or declined with a reason."""
    for world in (
        world_of(make, target_classes=1),
        world_of(make, source_classes=1),
        world_of(make, source_classes=0, target_classes=1),
    ):
        for shots in (0, 1, 5):
            task = world.task(shots)
            method = fitted(make, task)
            if method is not None:
                _check_outputs(method, task, world.test_items(task, per_class=1).rows(torch.tensor([0])))


def check_takes_tasks_without_source(make: Factory) -> None:
    """The protocol ``kshot``: no source classes, with and without validation items; the classes differ in size."""
    for validation in (0, 2):
        world = world_of(make, source_classes=0, target_classes=6, validation=validation)
        for shots in (1, 4):
            task = world.task(shots)
            if shots > 1:
                task = dataclasses.replace(task, support=task.support.rows(torch.arange(2, len(task.support))))
            method = fitted(make, task)
            if method is not None:
                _check_outputs(method, task, world.test_items(task))


def check_takes_separate_spaces_or_declines(make: Factory) -> None:
    """Feature files: images and texts of different widths, not of unit length, without class texts."""
    for world in (world_of(make, joint=False), world_of(make, joint=False, source_classes=0)):
        for shots in (1, 5):
            task = world.task(shots)
            method = fitted(make, task)
            if method is not None:
                _check_outputs(method, task, world.test_items(task))


def check_survives_saving(make: Factory) -> None:
    """Saved and loaded it is the same method: parameters, diagnostics, and output bit for bit."""
    world = world_of(make)
    task = world.task(shots=1)
    items = world.test_items(task)
    method = fitted(make, task)
    assert method is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "method.safetensors"
        method.save(path)
        loaded = type(method).load(path)
    assert loaded.parameters() == method.parameters()
    assert loaded.diagnostics() == method.diagnostics()
    assert loaded.scoring == method.scoring
    assert all(
        torch.equal(a, b) for a, b in zip(outputs(method, items, task), outputs(loaded, items, task), strict=True)
    )


def check_precisions_agree(make: Factory) -> None:
    """A task in float64 gives what it gives in float32."""
    world = world_of(make)
    task = world.task(shots=1)
    items = world.test_items(task)
    single, double = fitted(make, task), fitted(make, _double(task))
    assert single is not None and double is not None
    found = compared(double, _double(items), _double(task))
    torch.testing.assert_close(compared(single, items, task).double(), found.double(), rtol=1e-3, atol=1e-3)


def check_order_of_training_items_is_nothing(make: Factory) -> None:
    """Unless it draws random numbers, a method does not care in which order its training items come."""
    for world in (world_of(make), world_of(make, joint=False)):
        task = world.task(shots=3)
        watched = _Watched(**vars(task))
        method = fitted(make, watched)
        if method is None or watched.drawn:
            continue
        items = world.test_items(task)
        generator = torch.Generator().manual_seed(0)
        source, support = (p.rows(torch.randperm(len(p), generator=generator)) for p in (task.source, task.support))
        other = fitted(make, dataclasses.replace(task, source=source, support=support))
        assert other is not None
        torch.testing.assert_close(compared(method, items, task), compared(other, items, task), rtol=1e-3, atol=1e-3)


def check_components_are_switches_of_their_own(make: Factory) -> None:
    """Each component is a declared switch, and no two set the same parameter: so one can be off while others stay."""
    method = make()
    changed = [set(method.ablations[switch]) for switch in method.components]
    assert sum(map(len, changed)) == len(set().union(*changed))
    assert all(changed)


def check_is_deterministic(make: Factory) -> None:
    """The same seed gives the same output, bit for bit, whatever the state of the global generator."""
    world = world_of(make)
    task = world.task(shots=1)
    items = world.test_items(task)
    runs = []
    for state in (1, 2):
        torch.manual_seed(state)
        method = fitted(make, task)
        assert method is not None
        runs.append(outputs(method, items, task))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def check_leaves_global_randomness_alone(make: Factory) -> None:
    """Neither fitting nor scoring draws from the global generators."""
    import random

    import numpy as np

    world = world_of(make)
    task = world.task(shots=1)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    method = fitted(make, task)
    assert method is not None
    outputs(method, world.test_items(task), task)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tobytes(), random.getstate())  # noqa: NPY002


def check_rows_do_not_see_each_other(make: Factory) -> None:
    """An item's output does not depend on which items come with it, nor on their order."""
    world = world_of(make)
    task = world.task(shots=1)
    items = world.test_items(task)
    method = fitted(make, task)
    assert method is not None
    whole = outputs(method, items, task)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    shuffled = outputs(method, items.rows(order), task)
    some = outputs(method, items.rows(order[:3]), task)
    for out, mixed, part in zip(whole, shuffled, some, strict=True):
        pick = (lambda o, rows: o[rows][:, rows]) if method.scoring == "pairs" else (lambda o, rows: o[rows])
        torch.testing.assert_close(mixed, pick(out, order), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part, pick(out, order[:3]), rtol=1e-4, atol=1e-5)


def check_leaves_its_input_alone(make: Factory) -> None:
    """Neither the task nor the items are changed."""
    world = world_of(make)
    task = world.task(shots=1)
    items = world.test_items(task)
    kept = [tensor.clone() for tensor in _tensors((task, items))]
    method = fitted(make, task)
    assert method is not None
    outputs(method, items, task)
    for before, after in zip(kept, _tensors((task, items)), strict=True):
        assert torch.equal(before, after)


def check_fits_many_as_one(make: Factory) -> None:
    """``fit_many`` agrees with ``fit`` on each draw, and one draw's items do not reach another draw's method."""
    world = world_of(make)
    tasks = [world.task(shots=1, seed=seed) for seed in (0, 1, 2)]
    together = make().fit_many(tasks)
    for method, task in zip(together, tasks, strict=True):
        alone = fitted(make, task)
        assert alone is not None
        items = world.test_items(task)
        for a, b in zip(outputs(method, items, task), outputs(alone, items, task), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class _Watched(Task):
    """A task that notes what random numbers are drawn for."""

    drawn: list[str] = dataclasses.field(default_factory=list)

    def generator(self, purpose: str) -> torch.Generator:
        self.drawn.append(purpose)
        return super().generator(purpose)


def _check_outputs(method: Method, task: Task, items: Pairs) -> None:
    """Finite numbers of the declared shape, and embeddings of both modalities in one space."""
    found = outputs(method, items, task)
    assert method.scoring != "cosine" or found[0].shape == found[1].shape
    for out in found:
        assert out.ndim == 2 and len(out) == len(items)
        assert method.scoring != "posterior" or out.shape[1] == len(task.candidates)
        assert method.scoring != "pairs" or out.shape[1] == len(items)
        assert torch.isfinite(out).all()


def _double(value: Any) -> Any:
    """The same in float64."""
    parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name, part in parts.items():
        if isinstance(part, Pairs):
            parts[name] = _double(part)
        elif isinstance(part, Tensor) and part.is_floating_point():
            parts[name] = part.double()
    return dataclasses.replace(value, **parts)


def _map(inputs: int, outputs: int) -> Tensor:
    return torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(outputs)) / inputs**0.5


def _generalised(task: Task) -> Task:
    """The same task with the source classes in the gallery too."""
    return dataclasses.replace(task, candidates=torch.cat([task.target_classes, task.source_classes]))


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().values())
    if dataclasses.is_dataclass(value):
        return _tensors([getattr(value, f.name) for f in dataclasses.fields(value)])
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple | list) else []


METHOD_CHECKS: tuple[Callable[[Factory], None], ...] = (
    check_works_at_every_shot,
    check_few_classes_and_items,
    check_takes_tasks_without_source,
    check_takes_separate_spaces_or_declines,
    check_is_deterministic,
    check_leaves_global_randomness_alone,
    check_rows_do_not_see_each_other,
    check_leaves_its_input_alone,
    check_fits_many_as_one,
    check_survives_saving,
    check_precisions_agree,
    check_order_of_training_items_is_nothing,
    check_components_are_switches_of_their_own,
)
