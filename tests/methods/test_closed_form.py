"""The closed-form methods: against scikit-learn where it has them, else against their definition."""

import numpy as np
import pytest
import torch
from cases import World, fitted
from sklearn.cross_decomposition import CCA, PLSSVD
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as Peer

from xshot_bench.methods.base import MODALITIES
from xshot_bench.methods.cca import Cca
from xshot_bench.methods.cca3 import Cca3
from xshot_bench.methods.jrl import Jrl
from xshot_bench.methods.kcca import Kcca
from xshot_bench.methods.pls import Pls
from xshot_bench.methods.ridge import Ridge
from xshot_bench.methods.scm import Scm

WORLD = World(dim=24, joint=False, per_class=20)  # 20-d images, 12-d texts of another scale
TASK = WORLD.task(shots=3)
ITEMS = WORLD.test_items(TASK)


def arrays(pairs):
    return [pairs[m].double().numpy() for m in MODALITIES]


def standardised():
    return [(x - x.mean(0)) / x.std(0) for x in arrays(TASK.labelled)]


def embedded(method, pairs=ITEMS):
    return [method.embed(pairs[m], m).double().numpy() for m in MODALITIES]


def same_up_to_sign(found, expected, atol=1e-3):
    """Columns agree after each is brought to unit length and one sign."""
    found, expected = (a / np.linalg.norm(a, axis=0) for a in (found, expected))
    np.testing.assert_allclose(found * np.sign((found * expected).sum(0)), expected, atol=atol)


def test_unregularised_cca_is_scikit_learns():
    method = fitted(lambda: Cca(dimensions=3, regularisation=0.0, power=0.0), TASK)
    peer = CCA(n_components=3, max_iter=5000, tol=1e-12).fit(*arrays(TASK.labelled))
    for found, expected in zip(embedded(method), peer.transform(*arrays(ITEMS)), strict=True):
        same_up_to_sign(found - found.mean(0), expected - expected.mean(0), atol=5e-3)


def test_canonical_coordinates_are_uncorrelated_and_ordered():
    method = fitted(lambda: Cca(dimensions=6, regularisation=0.0, power=0.0), TASK)
    image, text = embedded(method, TASK.labelled)
    for own in (image, text):
        np.testing.assert_allclose(own.T @ own / len(own), np.eye(6), atol=1e-3)
    across = image.T @ text / len(image)
    np.testing.assert_allclose(across, np.diag(across.diagonal()), atol=1e-3)
    assert (np.diff(across.diagonal()) < 1e-4).all() and across[0, 0] > 0.5
    weighted = embedded(fitted(lambda: Cca(dimensions=6, regularisation=0.0, power=2.0), TASK), TASK.labelled)[0]
    np.testing.assert_allclose(np.abs(weighted), np.abs(image * across.diagonal() ** 2), atol=1e-3)


def test_pls_is_scikit_learns():
    method = fitted(lambda: Pls(dimensions=5, power=0.0), TASK)
    peer = PLSSVD(n_components=5).fit(*arrays(TASK.labelled))
    for found, expected in zip(embedded(method), peer.transform(*arrays(ITEMS)), strict=True):
        same_up_to_sign(found, expected)


def test_ridge_is_scikit_learns():
    method = fitted(lambda: Ridge(strength=7.0), TASK)
    label = TASK.labelled.label.numpy()
    classes = (label[:, None] == np.arange(16)).astype(float)
    for x, y, found in zip(standardised(), arrays(ITEMS), embedded(method), strict=True):
        raw = arrays(TASK.labelled)[0 if x.shape[1] == 20 else 1]
        peer = Peer(alpha=7.0).fit(x, classes)
        expected = peer.predict((y - raw.mean(0)) / raw.std(0)) - classes.mean(0)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_three_views_reach_the_largest_sum_of_correlations():
    """The first direction maximises wᵀSw / wᵀDw: no other direction of the joined views does better."""
    method = fitted(lambda: Cca3(dimensions=1, regularisation=0.0, power=0.0), TASK)
    label = TASK.labelled.label.numpy()
    classes = (label[:, None] == np.arange(16)).astype(float)
    views = [*standardised(), classes - classes.mean(0)]

    def quotient(parts):
        scores = [view @ part for view, part in zip(views, parts, strict=True)]
        return (sum(scores) ** 2).sum() / sum((score**2).sum() for score in scores)

    image, text = (method.map[m].double().numpy()[:, 0] for m in MODALITIES)
    wanted = views[0] @ image + views[1] @ text  # given the two, the best third part is a regression on their sum
    third = np.linalg.lstsq(views[2], wanted, rcond=None)[0]
    best = max(quotient([image, text, factor * third]) for factor in np.geomspace(0.1, 10, 200))
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 1):
        for _ in range(50):
            other = [
                part + size * rng.standard_normal(len(part)) * np.abs(part).mean() for part in (image, text, third)
            ]
            assert quotient(other) <= best + 1e-3
    assert best > 2


def test_three_views_of_labels_that_say_nothing_are_two():
    """With one class the third view is empty: the directions are those of CCA."""
    task = World(joint=False, source_classes=0, target_classes=1).task(shots=7)
    three = fitted(lambda: Cca3(dimensions=2, regularisation=0.5, power=0.0), task)
    two = fitted(lambda: Cca(dimensions=2, regularisation=0.5, power=0.0), task)
    for m in MODALITIES:
        same_up_to_sign(three.map[m].double().numpy(), two.map[m].double().numpy())


def test_kernel_cca_with_a_linear_kernel_is_the_primal_problem():
    """(K + κ)⁻¹K = X(XᵀX + κ)⁻¹Xᵀ, so the coordinates are those of a problem in d dimensions."""
    world = World(per_class=20)
    task = world.task(shots=3)
    method = fitted(lambda: Kcca(kernel="cosine", kappa=0.7, dimensions=4, power=0.0), task)
    views = [x - x.mean(0) for x in arrays(task.labelled)]
    hats = [x @ np.linalg.inv(x.T @ x + 0.7 * np.eye(16)) @ x.T for x in views]
    left, values, right = np.linalg.svd(hats[0] @ hats[1])
    test = [a - b.mean(0) for a, b in zip(arrays(world.test_items(task)), arrays(task.labelled), strict=True)]
    for found, x, y, u in zip(embedded(method, world.test_items(task)), views, test, (left, right.T), strict=True):
        expected = y @ x.T @ np.linalg.inv(x @ x.T + 0.7 * np.eye(len(x))) @ u[:, :4]
        same_up_to_sign(found, expected, atol=5e-3)
    assert (values[:4] > 1.005 * values[1:5]).all()  # else the columns would not be unique


def test_chi2_kernel_wants_histograms():
    assert fitted(lambda: Kcca(kernel="chi2"), TASK) is None
    positive = World(source_classes=0)
    task = positive.task(shots=5)
    task = type(task)(
        **vars(task)
        | {"support": type(task.support)(task.support.image.abs(), task.support.text.abs(), task.support.label)}
    )
    method = fitted(lambda: Kcca(kernel="chi2", dimensions=3), task)
    x, items = task.support.image[:1], task.support.image
    distance = ((x - items) ** 2 / (x + items)).sum(1)
    every = torch.stack([((row - items) ** 2 / (row + items)).sum(1) for row in items])
    kernel = torch.exp(-distance / every.mean())
    expected = (kernel - torch.exp(-every / every.mean()).mean(0)) @ method.map["image"]
    torch.testing.assert_close(method.embed(x, "image")[0], expected, atol=1e-4, rtol=1e-3)


def test_jrl_without_its_other_terms_is_least_squares():
    method = fitted(lambda: Jrl(agreement=0.0, smoothness=0.0, sparsity=1e-8), TASK)
    classes = (TASK.labelled.label.numpy()[:, None] == np.arange(16)).astype(float)
    for m, x in zip(MODALITIES, standardised(), strict=True):
        np.testing.assert_allclose(method.map[m].numpy(), np.linalg.lstsq(x, classes, rcond=None)[0], atol=1e-4)


def test_jrl_reaches_the_least_of_its_objective():
    strength = {"agreement": 2.0, "smoothness": 0.5, "sparsity": 20.0}
    maps = [fitted(lambda: Jrl(neighbours=10, **strength), TASK).map[m].double().numpy() for m in MODALITIES]
    views = standardised()
    classes = (TASK.labelled.label.numpy()[:, None] == np.arange(16)).astype(float)
    laplacians = []
    for x in views:
        distance = ((x[:, None] - x[None]) ** 2).sum(2)
        np.fill_diagonal(distance, np.inf)
        near = distance <= np.sort(distance, axis=1)[:, 9:10]
        near = (near | near.T).astype(float)
        degree = near.sum(1)
        laplacians.append(np.eye(len(x)) - near / np.sqrt(np.outer(degree, degree)))

    def objective(p, q):
        scores = [views[0] @ p, views[1] @ q]
        fit = sum(((s - classes) ** 2).sum() for s in scores) + 2.0 * ((scores[0] - scores[1]) ** 2).sum()
        smooth = sum(np.trace(s.T @ laplacian @ s) for s, laplacian in zip(scores, laplacians, strict=True))
        return fit + 0.5 * smooth + 20.0 * sum(np.linalg.norm(a, axis=1).sum() for a in (p, q))

    least = objective(*maps)
    rng = np.random.default_rng(0)
    for size in (0.003, 0.01, 0.03):
        for _ in range(20):
            assert objective(*(a + size * rng.standard_normal(a.shape) for a in maps)) > least
    assert objective(*(0.9 * a for a in maps)) > least < objective(*(1.1 * a for a in maps))


def test_scm_is_logistic_regression_on_the_coordinates_of_cca():
    method = fitted(lambda: Scm(dimensions=4, regularisation=0.1, strength=2.0), TASK)
    space = fitted(lambda: Cca(dimensions=4, regularisation=0.1, power=0.0), TASK)
    for m, seen, items in zip(MODALITIES, embedded(space, TASK.support), embedded(space), strict=True):
        peer = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(seen, TASK.support.label)
        found = torch.softmax(method.logits(ITEMS[m], m), dim=1).numpy()
        np.testing.assert_allclose(found, peer.predict_proba(items), atol=2e-3)


@pytest.mark.parametrize("make", [Cca, Cca3, Kcca, Pls, Ridge, Jrl])
def test_pairs_of_the_same_class_come_closer(make):
    """Learnt on source pairs alone (X = 0), the target items' own pairs are nearer than others, across the spaces."""
    world = World(joint=False, source_classes=40, per_class=20)
    task = world.task(shots=0)
    items = world.test_items(task)
    image, text = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in embedded(fitted(make, task), items))
    cosines, same = image @ text.T, (items.label[:, None] == items.label).numpy()
    assert cosines[same].mean() > cosines[~same].mean() + 0.1
