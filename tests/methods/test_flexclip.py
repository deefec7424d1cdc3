"""FLEX-CLIP: its identities, its closed-form gradients, and that its generator transfers to unseen classes."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from cases import World, fitted, outputs
from torch.nn.functional import normalize

from xshot_bench.methods._stacking import Draws
from xshot_bench.methods.base import Pairs
from xshot_bench.methods.flexclip import FlexClip
from xshot_bench.methods.flexclip import projection as stage_2
from xshot_bench.methods.flexclip.fidelity import fidelity, frechet, nearest
from xshot_bench.methods.flexclip.generation import Critic, FeatureGenerator, Sizes
from xshot_bench.methods.flexclip.stacked import SLOPE, class_codes

QUICK = {"rounds": 4, "steps": 4, "pseudo": 5}
# What the 16-d world needs, where the class texts are no place to start from.
LEARNING = {
    "rounds": 150,
    "latent": 8,
    "generator_rate": 0.003,
    "kl": 0.5,
    "hidden": 128,
    "steps": 300,
    "projector_rate": 0.003,
}


def quick(**parameters):
    return FlexClip(**QUICK | parameters)


def test_gate_shut_returns_the_features_bit_for_bit():
    task = World().task(shots=1)
    items = World().test_items(task)
    image, text = outputs(fitted(lambda: quick(fusion="shut"), task), items)
    assert torch.equal(image, items.image)
    assert torch.equal(text, items.text)


def test_gate_open_is_the_plain_projector():
    task = World().task(shots=1)
    x = World().test_items(task).image
    method = fitted(lambda: quick(fusion="none"), task)
    p = method.projectors["image"]
    inner = torch.nn.functional.gelu(x @ p.hidden.weights[0][0] + p.hidden.bias[0])
    plain = normalize(inner @ p.out.weights[0][0] + p.out.bias[0], dim=1)
    torch.testing.assert_close(method.embed(x, "image"), plain)
    assert not torch.allclose(plain, x, atol=0.1)


def test_the_gate_mixes_features_and_projection():
    task = World().task(shots=1)
    x = World().test_items(task).text
    method = fitted(quick, task)
    projector = method.projectors["text"]
    h, g = projector(x[None])
    projector.fusion = "none"
    u, _ = projector(x[None])
    assert ((g > 0) & (g < 1)).all()
    torch.testing.assert_close(h, g * u + (1 - g) * x)


@pytest.mark.parametrize(("fusion", "gates"), [("gate", 16), ("scalar", 1)])
def test_a_vector_gate_has_a_number_for_each_dimension_and_a_scalar_gate_one(fusion, gates):
    task = World().task(shots=1)
    x = World().test_items(task).text
    method = fitted(lambda: quick(fusion=fusion, gate_bias=-2.0, projector_rate=0.05), task)
    _, g = method.projectors["text"](x[None])
    assert g.shape == (1, len(x), gates)
    assert g.std(1).min() > 0, "the gate is learnt: it depends on the item"
    untrained = fitted(lambda: quick(fusion=fusion, gate_bias=-1.0, steps=0), task)
    assert untrained.diagnostics()["mean gate"] == pytest.approx(1 / (1 + math.e))


def test_half_is_the_mean_of_feature_and_projection():
    task = World().task(shots=1)
    x = World().test_items(task).text
    method = fitted(lambda: quick(**FlexClip.ablations["half"]), task)
    h = method.embed(x, "text")
    method.projectors["text"].fusion = "none"
    torch.testing.assert_close(h, (method.embed(x, "text") + x) / 2)
    assert method.diagnostics()["mean gate"] == 0.5


def test_frozen_is_clip_without_training_a_generator():
    task = World().task(shots=1)
    items = World().test_items(task)
    method = fitted(lambda: quick(**FlexClip.ablations["frozen"]), task)
    assert all(torch.equal(h, x) for h, x in zip(outputs(method, items), (items.image, items.text), strict=True))
    assert set(method.diagnostics()) == {"mean gate"}


@pytest.mark.parametrize(
    ("generation", "shots", "sees_targets"),
    [("none", 0, False), ("none", 1, True), ("vaegan", 0, True)],
)
def test_what_stage_2_is_trained_on(monkeypatch, generation, shots, sees_targets):
    """Looks at the items whose features the training steps really use, not at a flag."""
    task, seen = World().task(shots), []

    class Watched(stage_2.Stack):
        def features(self, at):
            seen.append(self.label[at])
            return super().features(at)

    monkeypatch.setattr(stage_2, "Stack", Watched)
    fitted(lambda: quick(generation=generation, steps=20), task)
    labels = torch.cat(seen, 1).unique()
    assert torch.isin(task.source_classes, labels).all()
    assert torch.isin(labels, task.target_classes).any() == sees_targets
    assert torch.isin(task.target_classes, labels).all() == sees_targets


def test_training_set_draws_classes_equally_and_shots_by_their_share():
    task = World().task(shots=2)
    pseudo = World().pairs(task.target_classes, 30, torch.Generator())
    pairs, weight = stage_2.training_set(task, pseudo, shot_share=0.7)
    assert len(pairs) == len(task.source) + len(task.support) + len(pseudo)
    for c in (*task.source_classes, *task.target_classes):
        assert weight[pairs.label == c].sum() == pytest.approx(1)
    shots = slice(len(task.source), len(task.source) + len(task.support))
    assert weight[shots].sum() == pytest.approx(0.7 * len(task.target_classes))


def test_critic_gradients_are_those_of_double_backward():
    tasks = [World().task(1, seed) for seed in (0, 1)]
    draws = Draws(tasks, "test")
    critic = Critic(draws, Sizes(width=16, code=16, hidden=12, latent=4))
    critic.out.data *= 3
    critic.hidden.bias.data += draws.normal(2, 1, 12).flatten(0, 1)
    real, fake, mixed, a = (draws.normal(2, 7, 16).flatten(0, 1) for _ in range(4))
    gradients, norm, gap = critic.gradients(real, fake, mixed, a, penalty=10.0)

    mixed.requires_grad_()
    (slope,) = torch.autograd.grad(critic(mixed, a).sum(), mixed, create_graph=True)
    true_norm = slope.norm(dim=-1)
    true_gap = (critic(real, a) - critic(fake, a)).mean(1)
    loss = 10.0 * (true_norm - 1).square().mean(1) - true_gap
    expected = torch.autograd.grad(loss.sum(), critic.parameters)
    torch.testing.assert_close(norm, true_norm.mean(1))
    torch.testing.assert_close(gap, true_gap)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_critic_is_a_leaky_network_of_feature_and_class():
    draws = Draws([World().task(1)], "test")
    critic = Critic(draws, Sizes(width=16, code=16, hidden=12, latent=4))
    x, a = draws.normal(2, 5, 16)[0], draws.normal(2, 5, 16)[0]
    for m in range(2):
        joined = torch.cat([x[m], a[m]], 1) @ torch.cat([w[m] for w in critic.hidden.weights])
        inner = torch.nn.functional.leaky_relu(joined + critic.hidden.bias[m], SLOPE)
        torch.testing.assert_close(critic(x, a)[m], inner @ critic.out[m, 0])


def test_class_codes_keep_all_inner_products():
    task = dataclasses.replace(World().task(0), class_text=normalize(torch.randn(6, 16), dim=1))
    codes = class_codes(task)
    assert codes.shape == (6, 6)
    torch.testing.assert_close(codes @ codes.T, task.class_text @ task.class_text.T)


def test_a_draw_does_not_depend_on_its_company():
    """``fit_many`` gives each draw what ``fit`` gives it, whatever the other draws hold."""
    world = World()
    tasks = [world.task(1, seed) for seed in (0, 1, 2)]
    strange = dataclasses.replace(tasks[2], source=tasks[2].source.rows(torch.arange(30, 90)))
    make = lambda: quick(rounds=25, steps=25)  # noqa: E731
    for company in ([tasks[0], tasks[1]], [strange, tasks[1]]):
        method = make().fit_many(company)[1]
        alone = fitted(make, tasks[1])
        for a, b in zip(outputs(method, tasks[0].source), outputs(alone, tasks[0].source), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def transfer_world():
    """Class means are a linear map of the class text, another one in each modality: zero-shot is useless."""
    return World(dim=16, source_classes=60, target_classes=12, per_class=10, noise=0.5, skew=1.0)


def accuracy(method, task, items):
    return [float((task.candidates[out.argmax(1)] == items.label).float().mean()) for out in outputs(method, items)]


def gains(world, shots):
    """By how much generation raises the accuracy on new items of the target classes, in two draws."""
    found = []
    for seed in (0, 1):
        task = world.task(shots, seed)
        items = world.test_items(task)
        with_, without = (
            accuracy(fitted(lambda g=g: FlexClip(**LEARNING, generation=g, score_by="posterior"), task), task, items)
            for g in ("vaegan", "none")
        )
        found += [a - b for a, b in zip(with_, without, strict=True)]
    return found


def test_generated_features_beat_a_source_only_projector_at_zero_shots(transfer_world):
    at_zero, at_five = gains(transfer_world, 0), gains(transfer_world, 5)
    assert min(at_zero) > 0.1, at_zero
    assert sum(at_five) < sum(at_zero), "the advantage shrinks as real shots come in"


def test_critic_and_encoder_stay_healthy(transfer_world):
    found = fitted(lambda: FlexClip(**LEARNING), transfer_world.task(1)).diagnostics()
    assert found["critic gradient norm"] == pytest.approx(1, abs=0.15)
    assert found["KL"] > 0.5


def test_pseudo_items_lie_near_the_unseen_classes_means(transfer_world):
    task = transfer_world.task(0)
    generator = FeatureGenerator(FlexClip(**LEARNING), [task])
    before = generator.pseudo_pairs([task.target_classes])[0]
    generator.train()
    after = generator.pseudo_pairs([task.target_classes])[0]
    for modality in ("image", "text"):
        truth = transfer_world.means(modality)[task.target_classes]
        at_start, at_end = (
            (normalize(p.means(modality, task.target_classes), dim=1) * truth).sum(1).mean() for p in (before, after)
        )
        assert at_end > 0.7 > 0.3 > at_start


def test_pseudo_features_start_at_the_class_texts():
    task = World().task(0)
    made = FeatureGenerator(FlexClip(), [task]).pseudo_pairs([task.target_classes])[0]
    texts = task.class_text[made.label]
    assert (made.image * texts).sum(1).min() > 0.7


def test_frechet_distance_is_that_of_diagonal_gaussians():
    x, y = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (9, 12))
    y = 2 * y + 1
    covariances = [np.diag(z.var(0).numpy()) for z in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = (x.mean(0) - y.mean(0)).square().sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet(x, y) == pytest.approx(float(expected))
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    assert frechet(x, x + 2) == pytest.approx(5 * 2**2), "a shift is its squared length"


def test_nearest_real_neighbour_by_hand():
    real = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert nearest(torch.tensor([[0.0, 5.0], [1.0, 0.0]]), real) == pytest.approx(1)
    assert nearest(torch.tensor([[-1.0, 0.0]]), real) == pytest.approx(0)
    assert nearest(real) == pytest.approx(0.5**0.5), "each one's nearest other is at 45 degrees"


def test_fidelity_takes_each_class_and_side_for_itself():
    task = World().task(shots=2)
    copied = task.source + task.support
    found = fidelity(task, copied)
    for side in ("source", "target"):
        assert found[f"{side} Frechet distance"] == pytest.approx(0, abs=1e-6)
        assert found[f"{side} nearest real"] == pytest.approx(1)
        assert found[f"{side} nearest real of real"] < 0.9
    assert "target Frechet distance of real" not in found, "two shots have no halves with a spread"
    moved = Pairs(copied.image, copied.text, (copied.label + 1) % len(task.classes))
    worse = fidelity(task, moved)
    assert worse["source Frechet distance"] > found["source Frechet distance of real"]
    assert worse["target nearest real"] < found["target nearest real of real"]


@pytest.mark.parametrize(("shots", "sides"), [(0, {"source"}), (1, {"source", "target"})])
def test_diagnostics_of_a_fit(shots, sides):
    found = fitted(quick, World().task(shots)).diagnostics()
    assert {"critic gradient norm", "KL", "mean gate", "source Frechet distance", "source nearest real"} <= set(found)
    assert {side for side in ("source", "target") if f"{side} nearest real" in found} == sides
    assert "target Frechet distance" not in found


def test_training_brings_generated_features_nearer_to_real_ones(transfer_world):
    task = transfer_world.task(5)
    before, after = (fitted(lambda r=r: FlexClip(**LEARNING | {"rounds": r}), task).diagnostics() for r in (1, 150))
    for side in ("source", "target"):
        assert after[f"{side} Frechet distance"] < 0.6 * before[f"{side} Frechet distance"]
        assert after[f"{side} nearest real"] > before[f"{side} nearest real"]


def test_another_seed_gives_another_fit():
    task = World().task(shots=1)
    other = dataclasses.replace(task, seed=5)
    x = World().test_items(task).image
    first, second = (fitted(quick, t).embed(x, "image") for t in (task, other))
    assert not torch.allclose(first, second)
