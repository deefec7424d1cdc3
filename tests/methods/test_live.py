"""Methods that learn inside of the encoder's towers: they start at zero-shot, learn, and leave the towers alone."""

import dataclasses
import math

import live_world
import pytest
import torch
from cases import World, fitted, outputs
from live_world import TEMPLATE, WORDS, LiveWorld
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from xshot_bench.benchmarks.episode import Unlabelled
from xshot_bench.benchmarks.live import encoded
from xshot_bench.methods._live import batches
from xshot_bench.methods.base import MODALITIES, Declined, require
from xshot_bench.methods.clip_lora import ClipLora
from xshot_bench.methods.clip_lora.low_rank import changed, updates_of
from xshot_bench.methods.coop import CoOp

WORLD = LiveWorld()


def shown(items):
    return Unlabelled(items.image, items.text, None, items.texts, items.pixels)


def zero_shot(task, x):
    return task.scale * x @ task.class_text[task.candidates].T


def test_features_are_what_the_live_towers_give():
    task = WORLD.task(shots=1)
    with torch.no_grad():
        assert torch.allclose(
            normalize(task.towers.text(task.support.texts.read()), dim=1), task.support.text, atol=1e-5
        )
        pixels = task.support.pixels.read()
        assert torch.allclose(normalize(task.towers.image(pixels), dim=1), task.support.image, atol=1e-5)


@pytest.mark.parametrize("make", [CoOp, ClipLora, lambda: ClipLora(adapt="both")])
def test_what_is_missing_is_said(make):
    with pytest.raises(Declined, match="gradients in the encoder's towers"):
        require(make(), World().task(shots=1))
    task = WORLD.task(shots=1)
    require(make(), task)
    bare = dataclasses.replace(task.source, pixels=None)
    if make().required != make().needs:
        with pytest.raises(Declined, match="needs the pictures"):
            require(make(), dataclasses.replace(task, source=bare))


# CoOp


@pytest.mark.parametrize("shots", [0, 1])
def test_coop_with_the_prompts_words_and_no_step_is_zero_shot(shots):
    task = WORLD.task(shots)
    items = WORLD.test_items(task)
    method = fitted(lambda: CoOp(steps=0, start="words"), task)
    for m in MODALITIES:
        assert torch.allclose(method.logits(items[m], m), zero_shot(task, items[m]), atol=1e-4)
    assert method.diagnostics() == {"last loss": 0, "context moved": 0}


def test_coops_context_is_of_the_size_asked_for():
    task = WORLD.task(shots=2)
    width = live_world.CONFIG["text_cfg"]["width"]
    assert fitted(lambda: CoOp(steps=1, start="words"), task).vectors.shape == (4, width)  # a photo of a
    drawn = fitted(lambda: CoOp(steps=0, start="random", context=9), task).vectors
    assert drawn.shape == (9, width)
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.2)
    own = fitted(lambda: CoOp(steps=3, start="words", csc=True), task).vectors
    assert own.shape == (4, 4, width)
    assert (own[0] - own[1]).abs().max() > 1e-4
    with pytest.raises(Declined, match="needs labelled items"):
        CoOp(csc=True).fit(WORLD.task(shots=0))


def papers_loss(task, class_text):
    """Of the labelled images, each class weighing the same."""
    classes, row = task.labelled.label.unique(return_inverse=True)
    logits = task.scale * task.labelled.image @ class_text[classes].T
    return float(cross_entropy(logits, row, weight=1 / torch.bincount(row)))


def test_coop_lowers_the_papers_loss():
    task = WORLD.task(shots=5)
    method = fitted(lambda: CoOp(steps=30, train_on="image", rate=0.03, at_once=100), task)
    with torch.no_grad():
        prompts = [f"{name}." for name in task.towers.names]
        loss = papers_loss(task, normalize(task.towers.text(prompts, method.vectors), dim=1))
    assert loss < papers_loss(task, task.class_text) - 0.03
    assert loss == pytest.approx(method.diagnostics()["last loss"], abs=1e-3)


def test_a_saved_coop_needs_no_towers(tmp_path):
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    method = fitted(lambda: CoOp(steps=2), task)
    method.save(tmp_path / "coop.safetensors")
    loaded = CoOp.load(tmp_path / "coop.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(outputs(method, items), outputs(loaded, items), strict=True))
    assert (tmp_path / "coop.safetensors").stat().st_size < 50_000


# CLIP-LoRA


@pytest.mark.parametrize("adapt", ["text", "image", "both"])
def test_clip_lora_starts_at_zero_shot(adapt):
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    method = fitted(lambda: ClipLora(steps=0, adapt=adapt), task)
    found, (seen,) = encoded(method, task, shown(items))
    for m in MODALITIES:
        assert torch.allclose(method.embed(seen[m], m), items[m], atol=1e-5)
    assert torch.allclose(found.class_text, task.class_text, atol=1e-5)


def test_only_the_towers_that_are_adapted_give_other_features():
    task = WORLD.task(shots=2)
    items = shown(WORLD.test_items(task))
    for adapt, moved in (("text", {"text"}), ("image", {"image"}), ("both", {"image", "text"})):
        method = fitted(lambda adapt=adapt: ClipLora(steps=3, adapt=adapt), task)
        found, (seen, again) = encoded(method, task, items, items)
        assert seen is again  # the gallery is the queries: encoded once
        assert {m for m in MODALITIES if not torch.equal(seen[m], items[m])} == moved
        assert torch.equal(found.class_text, task.class_text) == ("text" not in moved)
        assert all(torch.allclose(seen[m].norm(dim=1), torch.ones(len(seen[m]))) for m in MODALITIES)


def test_the_updates_are_those_of_q_k_and_v_in_every_layer():
    towers = WORLD.task(shots=1).towers
    for tower in (towers.text, towers.image):
        updates = updates_of(tower, 2, torch.Generator())
        layers = [module for module in tower.modules() if isinstance(module, nn.MultiheadAttention)]
        assert len(updates) == len(layers) == 2
        for name, (down, up) in updates.items():
            assert name.endswith("attn.in_proj_weight")
            assert down.shape == (3, 2, 32) and up.shape == (3, 32, 2)
            assert not up.any()
            assert down.abs().max() <= 1 / math.sqrt(32)


def test_an_update_is_the_product_of_its_factors_for_q_k_and_v_apart():
    tower = WORLD.task(shots=1).towers.text
    updates = updates_of(tower, 2, torch.Generator())
    name, (down, up) = next(iter(updates.items()))
    up = torch.randn(up.shape, generator=torch.Generator().manual_seed(1))
    keep = torch.ones(32)
    keep[5] = 0
    new, old = changed(tower, {name: (down, up)}, 0.7, {name: keep})[name], tower.get_parameter(name)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    dropped = x.clone()
    dropped[:, 5] = 0
    for part in range(3):
        rows = slice(32 * part, 32 * part + 32)
        expected = x @ old[rows].T + 0.7 * (dropped @ down[part].T) @ up[part].T
        assert torch.allclose(x @ new[rows].T, expected, atol=1e-5)


def test_clip_lora_declines_a_tower_without_attention():
    task = WORLD.task(shots=1)

    class Mean(nn.Module):
        def forward(self, pixels):
            return pixels.float().mean((2, 3))

    with pytest.raises(Declined, match="the image tower has no attention"):
        ClipLora(adapt="both").fit(dataclasses.replace(task, towers=dataclasses.replace(task.towers, image=Mean())))


def test_clip_lora_lowers_the_papers_loss():
    task = WORLD.task(shots=5)
    settings = {"train_on": "image", "rate": 0.03, "at_once": 100, "dropout": 0.0}
    method = fitted(lambda: ClipLora(steps=40, **settings), task)
    loss = papers_loss(task, method.encode_classes(task))
    assert loss < papers_loss(task, task.class_text) - 0.2
    assert loss == pytest.approx(method.diagnostics()["last loss"], abs=1e-3)


def test_a_loaded_clip_lora_takes_the_towers_of_the_task(tmp_path):
    task = WORLD.task(shots=1)
    items = shown(WORLD.test_items(task))
    method = fitted(lambda: ClipLora(steps=2), task)
    method.save(tmp_path / "lora.safetensors")
    loaded = ClipLora.load(tmp_path / "lora.safetensors")
    (one,), (two,) = (encoded(each, task, items)[1] for each in (method, loaded))
    assert torch.equal(one.text, two.text)
    assert (tmp_path / "lora.safetensors").stat().st_size < 50_000


# batches


def test_a_batch_has_all_items_of_its_classes_and_they_weigh_alike():
    label = torch.tensor([3, 3, 3, 8, 5, 5])
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for part in batches(label, 20, 2, generator):
        seen |= set(part.classes.tolist())
        assert len(part.classes) == 2
        assert torch.equal(part.classes, torch.tensor([3, 5, 8])[part.place])
        assert torch.equal(label[part.row], part.classes[part.column])
        assert len(part.row) == int(torch.isin(label, part.classes).sum())
        assert torch.allclose(torch.bincount(part.column, part.weight), torch.tensor([0.5, 0.5]))
        one = part.one_of_each(generator)
        assert torch.equal(label[one.row], part.classes)
        logits = torch.randn(len(part.row), 2, generator=generator)
        by_hand = [cross_entropy(logits[part.column == k], part.column[part.column == k]) for k in range(2)]
        assert torch.allclose(part.entropy(logits), torch.stack(by_hand).mean())
    assert seen == {3, 5, 8}


def test_the_world_is_what_the_encoder_makes_of_words():
    task = WORLD.task(shots=1)
    assert task.towers.names == WORDS[:16]
    expected = live_world.encoder().encode_texts([TEMPLATE.format(WORDS[2])])
    assert torch.allclose(task.class_text[2], normalize(expected, dim=1)[0])
