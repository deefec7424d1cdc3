"""Heads and adapters: where they start, what they minimise, and what they learn from."""

import dataclasses

import numpy as np
import pytest
import torch
from cases import World, fitted, outputs
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from xshot_bench.methods import lppp
from xshot_bench.methods.clap import Clap
from xshot_bench.methods.clip_adapter import ClipAdapter
from xshot_bench.methods.cross_modal_probe import CrossModalProbe
from xshot_bench.methods.lppp import LPpp
from xshot_bench.methods.prolip import ProLip
from xshot_bench.methods.sm import SemanticMatching
from xshot_bench.methods.taskres import TaskRes
from xshot_bench.methods.tip_adapter import TipAdapter
from xshot_bench.methods.tip_adapter_f import TipAdapterF

HEADS = (CrossModalProbe, LPpp, Clap, TaskRes, TipAdapterF)
MODALITIES = ("image", "text")


def zero_shot(task, x):
    return fitted(SemanticMatching, task).logits(x, "image")


def tiny(items, labels, texts, scale=1.0):
    """A task whose images are ``items``, with texts that nobody looks at (``train_on="image"``)."""
    items, texts = torch.tensor(items), torch.tensor(texts)
    task = World(dim=items.shape[1], source_classes=0, target_classes=len(texts)).task(shots=1)
    support = dataclasses.replace(task.support, image=items, text=items, label=torch.tensor(labels), tokens=None)
    return dataclasses.replace(task, support=support, class_text=texts, scale=scale)


def overlapping():
    """Many items of few classes in few dimensions, which no hyperplane separates."""
    world = World(dim=4, source_classes=0, target_classes=3, noise=2.0)
    task = world.task(shots=1)
    return dataclasses.replace(
        task, support=world.pairs(task.candidates, 40, torch.Generator().manual_seed(0)), shots=40
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossModalProbe(epochs=0),
        lambda: Clap(epochs=0),
        lambda: TaskRes(epochs=0),
        lambda: TaskRes(alpha=0.0),
        lambda: TipAdapterF(alpha=0.0),
        lambda: ClipAdapter(ratio=0.0, score_by="posterior"),
        lambda: ProLip(epochs=0, score_by="posterior"),
    ],
    ids=["cross_modal_probe", "clap", "taskres", "taskres alpha=0", "tip_adapter_f alpha=0", "clip_adapter", "prolip"],
)
def test_at_first_it_is_zero_shot_classification(make):
    task = World().task(shots=3)
    items = World().test_items(task)
    method = fitted(make, task)
    for modality in MODALITIES:
        logits, expected = method.logits(items[modality], modality), zero_shot(task, items[modality])
        torch.testing.assert_close(logits * (expected.norm() / logits.norm()), expected)


@pytest.mark.parametrize("make", [ClipAdapter, ProLip])
def test_an_adapter_at_first_leaves_the_features_alone(make):
    task = World().task(shots=0)
    items = World().test_items(task)
    nothing = {"ratio": 0.0} if make is ClipAdapter else {"epochs": 0}
    for out, modality in zip(outputs(fitted(lambda: make(**nothing), task), items), MODALITIES, strict=True):
        torch.testing.assert_close(out, items[modality])


@pytest.mark.parametrize("make", [LPpp, Clap, TaskRes, TipAdapterF])
@pytest.mark.parametrize("generalised", [False, True])
def test_without_shots_a_head_stays_zero_shot_classification(make, generalised):
    task = World().task(shots=0)
    if generalised:
        task = dataclasses.replace(task, candidates=torch.cat([task.target_classes, task.source_classes]))
    items = World().test_items(task)
    for logits, modality in zip(outputs(fitted(make, task), items), MODALITIES, strict=True):
        torch.testing.assert_close(logits, zero_shot(task, items[modality]))


@pytest.mark.parametrize("cache", ["own", "both"])
def test_tip_adapter_f_starts_as_tip_adapter(cache):
    task = World().task(shots=2)
    items = World().test_items(task)
    at_first = outputs(fitted(lambda: TipAdapterF(epochs=0, alpha=3.0, beta=2.0, train_on=cache), task), items)
    peer = outputs(fitted(lambda: TipAdapter(alpha=3.0, beta=2.0, cache_of=cache), task), items)
    trained = outputs(fitted(lambda: TipAdapterF(alpha=3.0, beta=2.0, rate=0.01, train_on=cache), task), items)
    for a, b, c in zip(at_first, peer, trained, strict=True):
        torch.testing.assert_close(a, b)
        assert not torch.allclose(a, c, atol=1e-2)


def test_tip_adapter_f_keys_are_the_mean_of_an_items_views():
    task = World().task(shots=1)
    views = torch.stack([task.support.image, task.support.image.flip(1)], 1)
    support = dataclasses.replace(task.support, views=views)
    seen = dataclasses.replace(task, support=support, source=support.rows(torch.arange(0)))
    keys = fitted(lambda: TipAdapterF(epochs=0), seen).state["image"]["keys"]
    torch.testing.assert_close(keys, normalize(views.mean(1), dim=1))


def test_lppp_step_sizes_by_hand():
    """FᵀF = diag(2, 1); the texts' squared cosines sum to 2 and to 2·.36 + .64."""
    task = tiny([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1], [[1.0, 0.0], [0.6, 0.8]])
    method = LPpp(train_on="image")
    rate, alpha_rate = lppp.step_sizes(method.samples([task]))
    assert float(rate) == pytest.approx(4 * 3 / 2)
    assert float(alpha_rate) == pytest.approx(3 / (4 * 2))
    start = fitted(lambda: LPpp(train_on="image", alpha_start=250.0, epochs=0), task).state["image"]
    assert start["weight"].tolist() == [[2, 0], [0, 1]]
    assert start["alpha"].flatten().tolist() == pytest.approx([250 * (1 + 0.8) / 2] * 2)


@pytest.mark.parametrize("accumulate", [False, True])
def test_lppp_follows_its_update_rule(accumulate):
    """Written again in numpy, with the gradients of the softmax by hand."""
    task = overlapping()
    found = fitted(
        lambda: LPpp(train_on="image", epochs=35, alpha_start=5.0, accumulate_alpha_grad=accumulate), task
    ).state["image"]
    f, t = task.support.image.double().numpy(), task.class_text.double().numpy()
    y = np.eye(3)[task.support.label.numpy()]
    n, cosine = len(f), f @ t.T
    rate = 4 * n / np.linalg.eigvalsh(f.T @ f).max()
    alpha_rate = n / (4 * (cosine**2).sum(0).max())
    w, b = y.T @ f, np.zeros(3)
    alpha = np.full(3, 5.0 * np.mean([cosine[y[:, k] == 1, k].mean() for k in range(3)]))
    speed_w, speed_b, total = np.zeros_like(w), np.zeros(3), np.zeros(3)
    for epoch in range(1, 36):
        z = f @ w.T + alpha * cosine + b
        p = np.exp(z - z.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - y) / n
        slope = (error * cosine).sum(0)
        speed_w, speed_b = 0.9 * speed_w + error.T @ f, 0.9 * speed_b + error.sum(0)
        w, b = w - rate * speed_w, b - 4 * speed_b
        total = total + slope if accumulate else slope
        if epoch % 10 == 0:
            alpha = alpha - alpha_rate * total
    np.testing.assert_allclose(found["weight"], w, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["bias"][0], b, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["alpha"][:, 0], alpha, rtol=1e-3, atol=1e-3)


def test_converged_lppp_is_logistic_regression():
    """Text blended in or not, both minimise the cross-entropy of a linear classifier with a bias."""
    task = overlapping()
    x, y = task.support.image.numpy(), task.support.label.numpy()
    peer = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000).fit(x, y)
    method = fitted(lambda: LPpp(train_on="image", epochs=2000, alpha_start=5.0), task)
    found = torch.softmax(method.logits(task.support.image, "image"), 1)
    np.testing.assert_allclose(found, peer.predict_proba(x), atol=2e-3)


def test_converged_cross_modal_probe_is_logistic_regression():
    """Of images, texts and prompts, images weighing half; decay off, which has no counterpart."""
    task = overlapping()
    pairs, n = task.support, len(task.support)
    x = np.concatenate([pairs.image, pairs.text, task.class_text])
    y = np.concatenate([pairs.label, pairs.label, task.candidates])
    weight = np.r_[np.full(n, 0.5 / n), np.full(n + 3, 0.5 / (n + 3))]
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, y, weight)
    method = fitted(lambda: CrossModalProbe(epochs=2000, rate=0.01, decay=0.0), task)
    for modality in MODALITIES:
        found = torch.softmax(method.logits(pairs[modality], modality), 1)
        np.testing.assert_allclose(found, peer.predict_proba(pairs[modality].numpy()), atol=5e-3)


def test_clap_trusts_classes_by_their_zero_shot_probability():
    """Cosines are 1 and .6 for the items of the first class, 0 and .8 for that of the second."""
    task = tiny([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1], [[1.0, 0.0], [0.6, 0.8]], scale=10.0)
    first, second = 1 / (1 + np.exp(10 * (0.6 - 1))), 1 / (1 + np.exp(10 * (0 - 0.8)))
    for weights, expected in {
        "class": [first, second],
        "constant": [(first + second) / 2] * 2,
        "balanced": [1, 1],
    }.items():
        method = Clap(train_on="image", weights=weights)
        assert method.trust(method.samples([task])).flatten().tolist() == pytest.approx(expected)


def test_clap_minimises_its_objective():
    """As SciPy does, from the same start and without a gradient of ours."""
    task = overlapping()
    method = fitted(lambda: Clap(train_on="image", penalty=2.0, rate=0.01, epochs=1500), task)
    x, y, t = (part.double().numpy() for part in (task.support.image, task.support.label, task.class_text))
    chosen = np.arange(len(x)), y.astype(int)

    def probabilities(w):
        z = task.scale * x @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
        p = np.exp(z - z.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    trust = np.array([probabilities(t)[y == k, k].mean() for k in range(3)])

    def objective(flat):
        w = flat.reshape(t.shape)
        return -np.log(probabilities(w)[chosen]).mean() + 2.0 * (trust * ((w - t) ** 2).sum(1)).mean()

    best = minimize(objective, t.ravel(), method="L-BFGS-B", options={"maxiter": 1000})
    found = method.state["image"]["weight"].double().numpy()
    assert objective(t.ravel()) > best.fun + 0.1
    assert objective(found.ravel()) == pytest.approx(best.fun, abs=1e-4)


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("train_on", ["both", "own", "image"])
def test_a_head_learns_from_the_modalities_it_says(make, train_on):
    task = World().task(shots=3)
    items = World().test_items(task)
    of = lambda t: outputs(fitted(lambda: make(train_on=train_on), t), items)  # noqa: E731
    whole, learns_from = of(task), {m: [] for m in MODALITIES}
    for changed in MODALITIES:
        support = dataclasses.replace(task.support, **{changed: task.support[changed].flip(0)})
        other = of(dataclasses.replace(task, support=support))
        for before, after, modality in zip(whole, other, MODALITIES, strict=True):
            learns_from[modality] += [] if torch.equal(before, after) else [changed]
    both = ["image", "text"]
    assert (
        learns_from
        == {
            "both": {"image": both, "text": both},
            "own": {"image": ["image"], "text": ["text"]},
            "image": {"image": ["image"], "text": ["image"]},
        }[train_on]
    )


@pytest.mark.parametrize("make", [ClipAdapter, ProLip])
def test_an_adapter_weighs_classes_equally(make):
    """More copies of a class's items change nothing."""
    task = World().task(shots=1)
    items = World().test_items(task)
    copies = torch.cat([torch.arange(len(task.source)), *[torch.arange(16)] * 4])
    more = dataclasses.replace(task, source=task.source.rows(copies))
    strength = {"strength": 0.0} if make is ProLip else {}  # the penalty's 1/K counts items
    first, second = (outputs(fitted(lambda t=t: make(**strength), t), items) for t in (task, more))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("make", [ClipAdapter, ProLip])
def test_an_adapter_carries_over_to_unseen_classes(make):
    """Where class means are a linear map of the class texts, what is learnt on source classes helps the others."""
    world = World(source_classes=60, target_classes=12, noise=0.5, skew=0.6)
    task = world.task(shots=0)
    items = world.test_items(task, per_class=20)

    def accuracy(method):
        return [float((task.candidates[z.argmax(1)] == items.label).float().mean()) for z in outputs(method, items)]

    wide = {"ratio": 0.5, "reduction": 1} if make is ClipAdapter else {}  # a rotation does not pass a bottleneck
    before = accuracy(fitted(lambda: ProLip(epochs=0, score_by="posterior"), task))
    after = accuracy(fitted(lambda: make(score_by="posterior", rate=0.01, **wide), task))
    assert min(b - a for a, b in zip(before, after, strict=True)) > 0.05


def test_an_adapter_of_images_leaves_texts_alone():
    task = World().task(shots=1)
    items = World().test_items(task)
    image, text = outputs(fitted(lambda: ClipAdapter(adapt="image"), task), items)
    assert torch.equal(text, items.text)
    assert not torch.allclose(image, items.image, atol=0.01)


def test_clip_adapter_by_hand():
    task = World().task(shots=1)
    x = World().test_items(task).image
    method = fitted(lambda: ClipAdapter(ratio=0.3), task)
    down, up = method.state["image"]["down"], method.state["image"]["up"]
    assert down.shape == (16, 4)
    bottleneck = torch.nn.Sequential(
        torch.nn.Linear(16, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 16, bias=False), torch.nn.ReLU()
    )
    bottleneck[0].weight.data, bottleneck[2].weight.data = down.T, up.T
    long = 7 * x  # as published: before it is normalised
    expected = normalize(0.3 * bottleneck(long) + 0.7 * long, dim=1)
    torch.testing.assert_close(method.embed(x, "image"), expected.detach())


def test_prolip_is_held_to_where_it_started():
    task = World().task(shots=1)
    drift = [
        float((fitted(lambda s=s: ProLip(strength=s, rate=0.01), task).state["image"]["map"] - torch.eye(16)).norm())
        for s in (0.0, 1.0, 100.0)
    ]
    assert drift[0] > 1.5 * drift[1] > 10 * drift[2] > 0
