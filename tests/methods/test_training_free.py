"""The methods without training: by hand, by scikit-learn, and the identities by which they come from zero-shot CLIP."""

import dataclasses

import numpy as np
import pytest
import torch
from cases import World, fitted, outputs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from xshot_bench.methods.base import MODALITIES
from xshot_bench.methods.calip import Calip
from xshot_bench.methods.clip import Clip
from xshot_bench.methods.gda import Gda
from xshot_bench.methods.sm import SemanticMatching
from xshot_bench.methods.tip_adapter import TipAdapter

WORLD = World()


def labels(method, **parameters):
    return lambda: method(**parameters)


def zero_shot(task, items):
    """Logits by the class prompts: s x·t."""
    return [10.0 * items[m] @ task.class_text[task.candidates].T for m in MODALITIES]


def test_semantic_matching_by_prompts_is_zero_shot_classification():
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    for found, expected in zip(outputs(fitted(SemanticMatching, task), items), zero_shot(task, items), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("make", [labels(TipAdapter, alpha=0.0), labels(Gda, alpha=0.0)], ids=["tip", "gda"])
@pytest.mark.parametrize("shots", [1, 3])
def test_alpha_zero_is_zero_shot(make, shots):
    task = WORLD.task(shots)
    items = WORLD.test_items(task)
    for found, expected in zip(outputs(fitted(make, task), items), zero_shot(task, items), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("make", [TipAdapter, Gda])
@pytest.mark.parametrize("candidates", [range(12, 16), range(16)], ids=["target", "all"])
def test_without_shots_it_is_zero_shot(make, candidates):
    """In the generalised gallery too, where source classes would have items and target classes none."""
    task = dataclasses.replace(WORLD.task(shots=0), candidates=torch.tensor(candidates))
    items = WORLD.test_items(task)
    for found, expected in zip(outputs(fitted(make, task), items), zero_shot(task, items), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cache_of", ["own", "both"])
def test_tip_adapter_by_hand(cache_of):
    task = WORLD.task(shots=2)
    x = WORLD.test_items(task).text[3]
    logits = fitted(lambda: TipAdapter(alpha=2.0, beta=3.0, cache_of=cache_of), task).logits(x[None], "text")[0]
    for column, c in enumerate(task.target_classes):
        cached = [task.support.text, task.support.image][: 2 if cache_of == "both" else 1]
        evidence = sum(
            float(torch.exp(-3.0 * (1 - x @ key))) for keys in cached for key in keys[task.support.label == c]
        )
        assert float(logits[column]) == pytest.approx(float(10 * x @ task.class_text[c]) + 2 * evidence, abs=1e-4)


def test_a_larger_class_has_no_more_weight_in_the_cache():
    """Source classes with each of their items twice, in the generalised gallery: nothing moves."""
    task = dataclasses.replace(WORLD.task(shots=2), candidates=torch.arange(16))
    twice = dataclasses.replace(task, source=task.source + task.source)
    items = WORLD.test_items(task)
    for once, other in zip(
        outputs(fitted(TipAdapter, task), items), outputs(fitted(TipAdapter, twice), items), strict=True
    ):
        torch.testing.assert_close(once, other)


def test_tip_adapters_key_is_the_mean_of_the_views():
    task = WORLD.task(shots=1)
    views = normalize(task.support.image[:, None] + 0.3 * torch.randn(4, 5, 16, generator=torch.Generator()), dim=2)
    seen = dataclasses.replace(task.source, views=task.source.image[:, None].repeat(1, 5, 1))
    method = fitted(
        TipAdapter, dataclasses.replace(task, source=seen, support=dataclasses.replace(task.support, views=views))
    )
    torch.testing.assert_close(method.keys["image"], normalize(views.mean(1), dim=1))
    torch.testing.assert_close(method.keys["text"], task.support.text)


class Shrunk:
    """A class's share of the covariance that the paper inverts: (S + tr(S)/(M − 1) I) / d, S the scatter."""

    def __init__(self, items: int, classes: int) -> None:
        self.items, self.classes = items, classes

    def get_params(self, deep=True):
        return {"items": self.items, "classes": self.classes}

    def fit(self, x):
        scatter = (x - x.mean(0)).T @ (x - x.mean(0))
        width = x.shape[1]
        self.covariance_ = self.classes * (scatter + np.trace(scatter) / (self.items - 1) * np.eye(width)) / width
        return self


def test_gda_is_scikit_learns_lda_with_that_covariance():
    world = World(source_classes=0, target_classes=5)
    task = world.task(shots=6)
    items = world.test_items(task)
    method = fitted(lambda: Gda(alpha=0.5, with_text=False), task)
    for m in MODALITIES:
        peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunk(30, 5), priors=np.full(5, 0.2))
        peer.fit(task.support[m].double().numpy(), task.support.label.numpy())
        expected = 0.5 * peer.decision_function(items[m].double().numpy())
        found = method.logits(items[m], m).numpy()
        np.testing.assert_allclose(centred(found), centred(expected), atol=1e-3)


def test_gda_takes_its_covariance_from_the_source_too():
    task = WORLD.task(shots=1)
    other = dataclasses.replace(task, source=World(noise=2.0).task(shots=1).source)
    items = WORLD.test_items(task)
    first, second = (outputs(fitted(Gda, t), items)[0] for t in (task, other))
    assert not torch.allclose(first, second, atol=1e-3)


def test_semantic_matching_by_labels_is_scikit_learns_logistic_regression():
    world = World(joint=False)
    task = world.task(shots=5)
    items = world.test_items(task)
    method = fitted(lambda: SemanticMatching(classes_from="labels", strength=0.1), task)
    for m in MODALITIES:
        seen = task.support[m].double().numpy()
        mean, deviation = seen.mean(0), seen.std(0)
        peer = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit((seen - mean) / deviation, task.support.label)
        expected = peer.predict_proba((items[m].double().numpy() - mean) / deviation)
        found = torch.softmax(method.logits(items[m], m), dim=1)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_calip_without_updates_is_clip():
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    (scores,) = outputs(fitted(lambda: Calip(text_update=0.0, image_update=0.0), task), items)
    image, text = outputs(fitted(Clip, task), items)
    torch.testing.assert_close(scores, image @ text.T)


def test_calip_by_hand(monkeypatch):
    monkeypatch.setattr("xshot_bench.methods.calip.TEXTS", 3)  # in blocks
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    (scores,) = outputs(fitted(lambda: Calip(text_update=0.4, image_update=0.7), task), items)
    prompts = task.class_text[task.candidates]
    for n, k in ((0, 0), (7, 2), (3, 19)):
        image, text, tokens = items.image[n], items.text[k], items.tokens[n]
        guided = sum(weight * token for weight, token in zip(torch.softmax(2 * tokens @ text, 0), tokens, strict=True))
        attended = torch.stack([torch.softmax(2 * prompts @ token, 0) @ prompts for token in tokens])
        updated = attended.mean(0) + attended.max(0).values
        expected = image @ text + 0.4 * image @ guided + 0.7 * updated @ text
        torch.testing.assert_close(scores[n, k], expected)


def test_centred_clip_takes_the_mean_of_class_means_away():
    task = WORLD.task(shots=2)
    items = WORLD.test_items(task)
    unequal = dataclasses.replace(
        task, source=task.source.rows(torch.arange(5, 96))
    )  # class means, not items, are equal
    method = fitted(lambda: Clip(centred=True), unequal)
    expected = torch.stack([unequal.source.text[unequal.source.label == c].mean(0) for c in range(12)]).mean(0)
    torch.testing.assert_close(method.embed(items.text, "text"), items.text - expected)


def test_without_a_source_clip_is_centred_by_the_shots_or_not_at_all():
    world = World(source_classes=0)
    items = world.test_items(world.task(2))
    image = fitted(lambda: Clip(centred=True), world.task(2)).embed(items.image, "image")
    torch.testing.assert_close(image, items.image - world.task(2).support.image.mean(0))
    assert torch.equal(fitted(lambda: Clip(centred=True), world.task(0)).embed(items.image, "image"), items.image)


def centred(logits):
    return logits - logits.mean(1, keepdims=True)
