"""The deep cross-modal methods: each loss term against plain loops, gradient reversal, and what training does."""

import math

import pytest
import torch
from cases import World, fitted, outputs
from torch.nn.functional import normalize

from xshot_bench.methods import acmr, cada_vae, clip4cmr, dadn, dscmr
from xshot_bench.methods._deep import Batch, Network
from xshot_bench.methods._stacking import Draws
from xshot_bench.methods.acmr import Acmr
from xshot_bench.methods.base import MODALITIES
from xshot_bench.methods.cada_vae import CadaVae
from xshot_bench.methods.clip4cmr import Clip4Cmr
from xshot_bench.methods.dadn import Dadn
from xshot_bench.methods.dscmr import Dscmr

DEEP = (Acmr, CadaVae, Clip4Cmr, Dadn, Dscmr)
LABEL = [0, 0, 1, 2, 1]


def items(seed: int, unit: bool = False):
    """Five items of two draws ``[2,5,3]`` in float64, and their labels ``[2,5]``."""
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (normalize(x, dim=2) if unit else x), torch.tensor([LABEL, LABEL])


def same_class(label):
    return label[:, :, None] == label[:, None]


def squared(a, b) -> float:
    return float(((a - b) ** 2).sum())


def cosine(a, b) -> float:
    return float(a @ b / (a @ a).sqrt() / (b @ b).sqrt())


def test_dscmr_likelihood_by_loops():
    (u, label), (v, _) = items(0), items(1)
    found = dscmr.likelihood(u, v, same_class(label))
    for e in range(2):
        each = []
        for i, a in enumerate(LABEL):
            for j, b in enumerate(LABEL):
                p = 1 / (1 + math.exp(-cosine(u[e, i], v[e, j]) / 2))
                each.append(-math.log(p if a == b else 1 - p))
        assert float(found[e]) == pytest.approx(sum(each) / 25)


def test_dscmr_regression_by_hand():
    scores = torch.tensor([[[1.0, 0.0], [3.0, 5.0]]])
    onehot = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert dscmr.regression(scores, onehot).tolist() == [2.5]  # 0 and 5


def test_gradients_come_back_reversed():
    z = torch.tensor([1.0, -2.0], requires_grad=True)
    out = acmr.reverse(z, 0.5)
    assert out.tolist() == z.tolist()
    (gradient,) = torch.autograd.grad((out * torch.tensor([3.0, 4.0])).sum(), z)
    assert gradient.tolist() == [-1.5, -2.0]


def test_acmr_triplets_by_loops():
    (u, label), (v, _), (x, _) = items(0), items(1), items(2)
    negative = acmr.nearest_of_another_class(x, same_class(label))
    found = Acmr(margin=0.1, pull=0.7).hinge(u, v, v, negative)
    for e in range(2):
        each = []
        for i in range(5):
            rivals = [j for j in range(5) if LABEL[j] != LABEL[i]]
            worst = max(rivals, key=lambda j: cosine(x[e, i], x[e, j]))
            assert int(negative[e, i]) == worst
            each.append(max(0, 0.1 + 0.7 * squared(u[e, i], v[e, i]) / 2 - squared(u[e, i], v[e, worst]) / 2))
        assert float(found[e]) == pytest.approx(sum(each) / 5)


def test_without_another_class_there_is_no_triplet():
    x, _ = items(0)
    negative = acmr.nearest_of_another_class(x, torch.ones(2, 5, 5, dtype=torch.bool))
    assert (negative == -1).all()
    assert Acmr().hinge(x, -x, x, negative).tolist() == [0, 0]


def test_acmr_fools_its_adversary(monkeypatch):
    """Images and texts of separate spaces: their embeddings cannot be told apart, but can be without the reversal."""
    task = World(skew=1.0, joint=False).task(shots=5)

    def told() -> float:
        method = fitted(lambda: Acmr(steps=200, rate=2e-3, triplet=0.0), task)
        return method.diagnostics()["adversary's accuracy"]

    assert told() < 0.65
    monkeypatch.setattr(acmr, "reverse", lambda z, strength: z.detach())
    assert told() > 0.85


def test_supervised_contrastive_by_loops():
    z, label = items(0, unit=True)
    found = clip4cmr.supervised_contrastive(z, label, 0.3)
    for e in range(2):
        each = []
        for i in range(5):
            positives = [p for p in range(5) if p != i and LABEL[p] == LABEL[i]]
            below = sum(math.exp(float(z[e, i] @ z[e, a]) / 0.3) for a in range(5) if a != i)
            logs = [math.log(math.exp(float(z[e, i] @ z[e, p]) / 0.3) / below) for p in positives]
            each += [-sum(logs) / len(logs)] if logs else []
        assert len(each) == 4  # the third class has one item
        assert float(found[e]) == pytest.approx(sum(each) / 4)


def test_contrastive_and_triplet_by_loops():
    (u, label), (v, _) = items(0, unit=True), items(1, unit=True)
    pairs, triplets = (f(u, v, same_class(label), 0.2) for f in (clip4cmr.contrastive, clip4cmr.triplet))
    for e in range(2):
        d = [[squared(a, b) for b in v[e]] for a in u[e]]
        pair = sum(d[i][j] if LABEL[i] == LABEL[j] else max(0, 0.2 - d[i][j]) for i in range(5) for j in range(5))
        assert float(pairs[e]) == pytest.approx(pair / 5)
        positives = [(i, p) for i in range(5) for p in range(5) if LABEL[i] == LABEL[p]]
        hinges = [max(0, d[i][p] - d[i][n] + 0.2) for i, p in positives for n in range(5) if LABEL[n] != LABEL[i]]
        assert float(triplets[e]) == pytest.approx(sum(hinges) / len(positives))


def test_cada_vae_terms_are_those_of_normal_distributions():
    """The KL is torch's; W₂² of normals with diagonal covariances is ‖μ − μ'‖² + ‖σ − σ'‖²."""
    (mean, _), (log_variance, _), (other, _), (other_variance, _) = (items(seed) for seed in range(4))
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(cada_vae.divergence(mean, log_variance), kl.sum(2).mean(1))
    found = cada_vae.wasserstein((mean, log_variance), (other, other_variance))
    for e in range(2):
        each = [
            (
                squared(mean[e, i], other[e, i])
                + squared(torch.exp(log_variance[e, i] / 2), torch.exp(other_variance[e, i] / 2))
            )
            ** 0.5
            for i in range(5)
        ]
        assert float(found[e]) == pytest.approx(sum(each) / 5)


def test_cada_vae_weights_rise_as_published():
    assert [cada_vae.rising(share, 0.21, 0.75) for share in (0.0, 0.21, 0.48, 0.75, 1.0)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )


def test_mmd_by_loops():
    (x, _), (y, _) = items(0), items(1)
    found = dadn.mean_discrepancy(x, y + 1)
    for e in range(2):

        def kernel(a, b):
            return sum(math.exp(-squared(a, b) / (2 * sigma**2)) for sigma in (2, 5, 10, 20, 40, 80))

        def mean(first, second):
            return sum(kernel(a, b) for a in first for b in second) / 25

        value = mean(x[e], x[e]) + mean(y[e] + 1, y[e] + 1) - 2 * mean(x[e], y[e] + 1)
        assert float(found[e]) == pytest.approx(value**0.5)


def test_dadn_matching_moves_what_is_made_and_critics_move_by_their_own_loss():
    draws = Draws([World().task(0), World().task(0)], "test")
    critic = Network(draws, [3, 4, 1])
    made = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    real = made.detach() + 1
    wanted = [made, *critic.parameters]
    matching = torch.autograd.grad(dadn.discrepancy(critic, made, real).sum(), wanted, materialize_grads=True)
    judged = torch.autograd.grad(dadn.judged(critic, real, [made]).sum(), wanted, materialize_grads=True)
    assert matching[0].any() and not any(part.any() for part in matching[1:])
    assert not judged[0].any() and all(part.any() for part in judged[1:])
    told = [torch.sigmoid(critic(x)) for x in (real, made)]
    expected = -(torch.log(told[0]) + torch.log(1 - told[1])).mean((1, 2))
    torch.testing.assert_close(dadn.judged(critic, real, [made]), expected)


def test_a_random_item_of_another_class():
    draws = Draws([World().task(0), World().task(0, seed=1)], "test")
    _, label = items(0)
    seen = set()
    for _ in range(50):
        other = dadn.another_class(draws, same_class(label))
        assert (label.gather(1, other) != label).all()
        seen |= {(i, int(j)) for i, j in enumerate(other[0])}
    assert len(seen) == sum(a != b for a in LABEL for b in LABEL)
    assert (dadn.another_class(draws, torch.ones(2, 5, 5, dtype=torch.bool)) == -1).all()


def test_a_network_is_a_plain_perceptron():
    draws = Draws([World().task(0), World().task(0, seed=1)], "test")
    network = Network(draws, [3, 4, 2], "tanh", last=True)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for e in range(2):
        plain = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2), torch.nn.Tanh())
        for layer, (weight, bias) in zip(plain[::2], network.layers, strict=True):
            layer.weight.data, layer.bias.data = weight[e].T, bias[e, 0]
        torch.testing.assert_close(network(x)[e], plain(x[e]))
        torch.testing.assert_close(network.only(e)(x[e]), plain(x[e]))
        torch.testing.assert_close(network.first(1).only(e)(x[e]), plain(x[e])[:, :1])


def test_classes_are_drawn_equally_often():
    draws = Draws([World().task(0), World().task(0, seed=1)], "test")
    x = torch.arange(12.0).repeat(2, 1)[:, :, None]
    label = torch.tensor([[0] * 10 + [1, 2], [2] + [0] * 10 + [1]])
    part = Batch(x, x, label, torch.zeros(2, 4, 3)).drawn(draws, 3000)
    assert torch.equal(part.image, part.text)
    for e in range(2):
        share = torch.bincount(part.label[e], minlength=4) / 3000
        torch.testing.assert_close(share, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]), atol=0.04, rtol=0)
        assert torch.equal(label[e][part.image[e, :, 0].long()], part.label[e])


@pytest.mark.parametrize("make", DEEP)
def test_training_brings_pairs_of_unseen_classes_together(make):
    """Without a place to start from (class means unrelated across modalities), what it learns must transfer."""
    world = World(skew=1.0, source_classes=40, per_class=10)
    task = world.task(shots=5)
    test = world.test_items(task, per_class=10)
    settings = {"score_by": "posterior", "steps": 150, "rate": 3e-3, "batch": 64}
    logits = outputs(fitted(lambda: make(**settings), task), test)
    for of_modality, modality in zip(logits, MODALITIES, strict=True):
        named = task.candidates[of_modality.argmax(1)]
        assert float((named == test.label).float().mean()) > 0.5, modality  # chance is .25


@pytest.mark.parametrize("make", [Acmr, Clip4Cmr, Dscmr])
def test_without_shots_there_is_no_posterior(make):
    assert fitted(lambda: make(score_by="posterior"), World().task(shots=0)) is None


@pytest.mark.parametrize("make", [CadaVae, Dadn])
def test_class_texts_give_a_posterior_without_shots(make):
    """Classes whose texts say where they lie are named without an item of theirs."""
    world = World(skew=0.0, source_classes=40, noise=0.5)
    task = world.task(shots=0)
    test = world.test_items(task, per_class=10)
    method = fitted(lambda: make(score_by="posterior", steps=150, rate=3e-3), task)
    for of_modality in outputs(method, test):
        named = task.candidates[of_modality.argmax(1)]
        assert float((named == test.label).float().mean()) > 0.5


@pytest.mark.parametrize("make", [Acmr, CadaVae, Clip4Cmr, Dscmr])
def test_feature_files_of_separate_spaces_are_taken(make):
    assert fitted(lambda: make(steps=2), World(joint=False).task(shots=1)) is not None
