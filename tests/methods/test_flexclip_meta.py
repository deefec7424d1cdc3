"""FLEX-CLIP's two stages with a generator that learns across classes: its identities, and that it transfers."""

import dataclasses

import pytest
import torch
from cases import World, fitted, outputs
from torch.nn.functional import normalize

from xshot_bench.methods.flexclip_meta import FlexClipMeta, centre, centred
from xshot_bench.methods.flexclip_meta.means import ClassMeans, Episodes
from xshot_bench.methods.prototype import Prototype

QUICK = {"rounds": 4, "steps": 4, "members": 2}


def quick(**parameters):
    return FlexClipMeta(**QUICK | parameters)


@pytest.mark.parametrize("shots", [0, 1])
def test_anchor_alone_is_the_prototype(shots):
    task = World().task(shots)
    items = World().test_items(task)
    method, prototype = fitted(lambda: quick(anchor=1.0), task), fitted(Prototype, task)
    for mine, theirs in zip(outputs(method, items), outputs(prototype, items), strict=True):
        torch.testing.assert_close(mine / mine.norm(), theirs / theirs.norm())


def test_anchor_mixes_logits_of_equal_spread():
    task = World().task(shots=1)
    found = {w: fitted(lambda w=w: quick(anchor=w), task) for w in (0.0, 0.3, 1.0)}
    for modality in ("image", "text"):
        own, mixed, prototype = (method.logits(task.source[modality], modality) for method in found.values())
        for logits in (own, prototype):
            assert (logits - logits.mean(1, keepdim=True)).square().mean() == pytest.approx(1, rel=1e-4)
        torch.testing.assert_close(mixed, 0.7 * own + 0.3 * prototype)


@pytest.mark.parametrize(("classes", "weight"), [(28, 0.2), (7, 0.5), (2, 7 / 9)])
def test_anchor_by_classes_is_the_fixed_one_of_their_number(classes, weight):
    """With OpenMoji's 28 source classes it is what the switch ``fixedanchor`` has."""
    assert FlexClipMeta.ablations["fixedanchor"] == {"anchor": 0.2}
    task = World(source_classes=classes).task(shots=1)
    items = World(source_classes=classes).test_items(task)
    default, fixed = (fitted(lambda p=p: quick(**p), task) for p in ({}, {"anchor": weight}))
    assert default.diagnostics()["anchor"] == weight
    for mine, theirs in zip(outputs(default, items), outputs(fixed, items), strict=True):
        assert torch.equal(mine, theirs)


def test_cosine_is_the_mean_of_the_members():
    task = World().task(shots=1)
    items = World().test_items(task)
    both = fitted(quick, task)
    image, text = (normalize(e, dim=1) for e in outputs(fitted(lambda: quick(score_by="cosine"), task), items))
    cosines = []
    for k in range(2):
        x = {m: normalize(items[m] - both.centre[m], dim=1) for m in ("image", "text")}
        u, v = (normalize(both.projectors[m][k](x[m][None])[0][0], dim=1) for m in x)
        cosines.append(u @ v.T)
    torch.testing.assert_close(image @ text.T, sum(cosines) / 2)
    assert not torch.allclose(cosines[0], cosines[1], atol=1e-3), "members differ"


def test_features_are_moved_by_the_mean_of_class_means():
    task = World().task(shots=1)
    each = [task.source.image[task.source.label == c].mean(0) for c in task.source_classes]
    at = centre(task, 0.5)
    torch.testing.assert_close(at["image"], 0.5 * torch.stack(each).mean(0))
    moved = centred(task, at)
    torch.testing.assert_close(moved.support.image, normalize(task.support.image - at["image"], dim=1))
    torch.testing.assert_close(moved.class_text, normalize(task.class_text - at["text"], dim=1))


@pytest.mark.parametrize("shots", [1, 3])
def test_simulated_shots_are_other_items_of_the_class(shots):
    """Features that tell the item's number show which items a mean is made of."""
    world = World(per_class=4)
    task = world.task(shots)
    number = torch.arange(len(task.source), dtype=torch.float)
    image = normalize(torch.stack([number, number**2, *torch.ones(14, len(number))], 1), dim=1)
    source = dataclasses.replace(task.source, image=image)
    episodes = Episodes([dataclasses.replace(task, source=source)], directions=4)
    at = torch.arange(len(source))[None]
    seen = set()
    for seed in range(40):
        chance = torch.rand(1, len(source), shots, generator=torch.Generator().manual_seed(seed))
        own = episodes.simulated(at, chance).parts[0, :, 1]
        for i in range(len(source)):
            others = [j for j in range(len(source)) if source.label[j] == source.label[i] and j != i]
            if shots == 1:
                distance = (image[others] - own[i]).norm(dim=1)
                assert distance.min() < 1e-6
                seen.add((i, others[int(distance.argmin())]))
            else:
                assert image[others].min(0).values.sub(1e-6).le(own[i]).all()
                assert image[others].max(0).values.add(1e-6).ge(own[i]).all()
    assert shots > 1 or len(seen) == len(source) * 3, "each of the others is met"


def test_an_untrained_generator_is_text_and_shots():
    task = World().task(shots=2)
    means = ClassMeans(quick(), [task])
    made = means.of_classes([task.target_classes])[0]
    text = task.class_text[task.target_classes]
    image, texts = (task.support.means(m, task.target_classes) for m in ("image", "text"))
    expected = normalize(text + image + texts, dim=1)
    assert (made * expected).sum(-1).min() > 0.98
    parts = means.episodes.of_classes(task.target_classes[None]).parts
    torch.testing.assert_close(parts[0], torch.stack([text, image, texts], 1))
    torch.testing.assert_close(parts[1], torch.stack([text, texts, image], 1))


@pytest.mark.parametrize("shots", [0, 1])
def test_generated_means_of_unseen_classes_are_nearer_than_text_and_shots(shots):
    """Class means are one map of the class texts, so what source classes show holds for target classes too."""
    world = World(source_classes=60, target_classes=12, per_class=10, noise=0.5, skew=0.6)
    task = world.task(shots)
    means = ClassMeans(FlexClipMeta(rounds=300, generator_rate=3e-3), [task])
    before = means.of_classes([task.target_classes])[0]
    means.train()
    after = means.of_classes([task.target_classes])[0]
    for i, modality in enumerate(("image", "text")):
        truth = world.means(modality)[task.target_classes]
        near = [float((normalize(made[i], dim=1) * truth).sum(1).mean()) for made in (before, after)]
        assert near[1] > near[0] + 0.02, near


def test_pseudo_pairs_vary_about_the_mean_by_the_spread():
    task = World().task(shots=1)
    method = quick(spread=1.0, pseudo=50)
    made = ClassMeans(method, [task]).pseudo_pairs([task.target_classes])[0]
    method.spread = 0.0
    same = ClassMeans(method, [task]).pseudo_pairs([task.target_classes])[0]
    for c in task.target_classes:
        assert made.image[made.label == c].std(0).sum() > 0.01
        assert same.image[same.label == c].std(0).max() < 1e-6
    torch.testing.assert_close(
        normalize(made.means("image", task.target_classes), dim=1),
        normalize(same.means("image", task.target_classes), dim=1),
        atol=0.02,
        rtol=0,
    )


def test_means_classify_by_the_generated_means_alone():
    task = World().task(shots=1)
    x = World().test_items(task).image
    method = fitted(lambda: quick(**FlexClipMeta.ablations["means"]), task)
    at = centre(task, method.centring)
    generator = ClassMeans(method, [centred(task, at)])
    generator.train()
    rows = normalize(generator.of_classes([task.target_classes])[0].mean(0), dim=1)
    expected = normalize(x - at["image"], dim=1) @ rows.T
    found = method.logits(x, "image")
    torch.testing.assert_close(found / found.norm(), expected / expected.norm())


def test_diagnostics_tell_what_was_trained():
    task = World().task(shots=1)
    found = fitted(quick, task).diagnostics()
    assert {"KL", "k text", "k own", "k other", "mean gate", "source Frechet distance", "target nearest real"} <= set(
        found
    )
    assert "critic gradient norm" not in found
    assert "critic gradient norm" in fitted(lambda: quick(**FlexClipMeta.ablations["vaegan"]), task).diagnostics()
    assert set(fitted(lambda: quick(**FlexClipMeta.ablations["nogen"]), task).diagnostics()) == {"mean gate", "anchor"}


def test_a_draw_does_not_depend_on_its_company():
    world = World()
    tasks = [world.task(1, seed) for seed in (0, 1, 2)]
    strange = dataclasses.replace(tasks[2], source=tasks[2].source.rows(torch.arange(30, 90)))
    alone = fitted(lambda: quick(rounds=15), tasks[1])
    for company in ([tasks[0], tasks[1]], [strange, tasks[1]]):
        method = quick(rounds=15).fit_many(company)[1]
        for a, b in zip(outputs(method, tasks[0].source), outputs(alone, tasks[0].source), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
