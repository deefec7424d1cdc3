"""FLEX-CLIP: its identities, its closed-form gradients, and that its generator transfers to unseen classes."""

import dataclasses

import pytest
import torch
from cases import World, fitted, outputs
from torch.nn.functional import normalize

from xshot_bench.methods.flexclip import FlexClip
from xshot_bench.methods.flexclip import projection as stage_2
from xshot_bench.methods.flexclip.generation import Critic, FeatureGenerator, Sizes
from xshot_bench.methods.flexclip.stacked import SLOPE, Streams, class_codes

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
    streams = Streams(tasks, "test")
    critic = Critic(streams, Sizes(width=16, code=16, hidden=12, latent=4))
    critic.out.data *= 3
    critic.hidden.bias.data += streams.normal(2, 1, 12).flatten(0, 1)
    real, fake, mixed, a = (streams.normal(2, 7, 16).flatten(0, 1) for _ in range(4))
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
    streams = Streams([World().task(1)], "test")
    critic = Critic(streams, Sizes(width=16, code=16, hidden=12, latent=4))
    x, a = streams.normal(2, 5, 16)[0], streams.normal(2, 5, 16)[0]
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


def test_another_seed_gives_another_fit():
    task = World().task(shots=1)
    other = dataclasses.replace(task, seed=5)
    x = World().test_items(task).image
    first, second = (fitted(quick, t).embed(x, "image") for t in (task, other))
    assert not torch.allclose(first, second)
