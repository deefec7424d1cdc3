"""What a method may see, what the judge compares with, and that the two do not meet."""

import dataclasses

import numpy as np
import pytest
import torch
from worlds import make_features, make_split

from xshot_bench import InputError
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.datasets import kshot
from xshot_bench.methods.base import MODALITIES

FEATURES = make_features()
SPLIT = make_split(FEATURES)


def ids_of(rows: torch.Tensor) -> set[str]:
    """The items that unit image rows belong to."""
    unit = torch.nn.functional.normalize(torch.from_numpy(FEATURES.image.astype(np.float32)), dim=1)
    return {FEATURES.ids[int(i)] for i in (rows @ unit.T).argmax(1)}


@pytest.mark.parametrize("gallery", ["test", "train", "all"])
@pytest.mark.parametrize("draw", [0, 2])
def test_every_x_has_the_same_queries_and_gallery(gallery, draw):
    episodes = [make_episode(FEATURES, SPLIT, Setting(x, draw, gallery)) for x in range(4)]
    for episode in episodes[1:]:
        assert torch.equal(episode.queries.image[:], episodes[0].queries.image[:])
        assert torch.equal(episode.gallery.text[:], episodes[0].gallery.text[:])


def test_the_support_is_nested_and_none_of_it_is_queried_or_searched():
    seen: set[str] = set()
    for x in range(4):
        episode = make_episode(FEATURES, SPLIT, Setting(x, 1, "train"))
        support = ids_of(episode.task.support.image)
        assert len(support) == len(episode.task.support) == x * len(SPLIT.target)
        assert seen <= support
        assert not support & ids_of(episode.queries.image[:])
        assert not support & ids_of(episode.gallery.image[:])
        seen = support


def test_at_zero_shots_a_task_holds_source_items_only():
    task = make_episode(FEATURES, SPLIT, Setting(0, 0)).task
    assert len(task.support) == 0
    assert not torch.isin(task.source.label, task.target_classes).any()
    assert set(task.validation_classes.tolist()) < set(task.source_classes.tolist())


@pytest.mark.parametrize(("gallery", "classes"), [("test", 4), ("train", 4), ("all", 8)])
def test_gallery_modes(gallery, classes):
    episode = make_episode(FEATURES, SPLIT, Setting(1, 0, gallery))
    assert len(set(episode.answers.key["i2t"].gallery_label.tolist())) == classes == len(episode.task.candidates)
    assert len(episode.queries.image) == 4 * 4
    found = episode.answers.key["i2t"].pair
    assert (found == -1).all() if gallery == "train" else (found >= 0).all()


def test_the_pair_of_a_query_is_its_own_text():
    episode = make_episode(FEATURES, SPLIT, Setting(0, 0, "all"))
    assert torch.equal(episode.gallery.text[torch.from_numpy(episode.answers.key["i2t"].pair)], episode.queries.text[:])


def test_no_test_label_can_be_reached_from_a_task():
    """Permuting the labels of all test items changes the answers and not one number of the task or the items."""
    setting = Setting(2, 0, "all")
    before = make_episode(FEATURES, SPLIT, setting)
    label = FEATURES.label.copy()
    tests = np.array([i for i, name in enumerate(FEATURES.ids) if any(name in ids for ids in SPLIT.test.values())])
    label[tests] = np.random.default_rng(0).permutation(label[tests])
    after = make_episode(dataclasses.replace(FEATURES, label=label), SPLIT, setting)
    assert not np.array_equal(before.answers.key["i2t"].query_label, after.answers.key["i2t"].query_label)
    for field in dataclasses.fields(before.task):
        one, two = getattr(before.task, field.name), getattr(after.task, field.name)
        if dataclasses.is_dataclass(one):
            assert all(torch.equal(one[m], two[m]) for m in MODALITIES)
            assert torch.equal(one.label, two.label)
        else:
            assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    assert torch.equal(before.queries.image[:], after.queries.image[:])
    assert torch.equal(before.gallery.text[:], after.gallery.text[:])


def test_a_rehearsal_keeps_to_the_source_side():
    task = make_episode(FEATURES, SPLIT, Setting(2, 0)).task
    inner, held_out = task.rehearsal(0)
    assert set(inner.target_classes.tolist()) == set(task.validation_classes.tolist())
    assert set(held_out.label.tolist()) == set(task.validation_classes.tolist())
    assert not torch.isin(inner.source.label, task.validation_classes).any()
    assert len(inner.support) == 2 * len(task.validation_classes)
    items = {tuple(row.tolist()) for row in held_out.image}
    assert not items & {tuple(row.tolist()) for row in inner.support.image}


def test_wrong_settings_are_said():
    with pytest.raises(InputError, match="at most 3 shots a class, not 4"):
        make_episode(FEATURES, SPLIT, Setting(4, 0))
    with pytest.raises(InputError, match="no draw 9"):
        make_episode(FEATURES, SPLIT, Setting(1, 9))


def test_base_to_new_has_a_source_and_no_shots_of_the_new_classes():
    labels = {i: FEATURES.classes[y] for i, y in zip(FEATURES.ids, FEATURES.label, strict=True)}
    base, new = (
        make_episode(FEATURES, kshot.make_split("x", v, labels, FEATURES.classes), Setting(3, 1)).task
        for v in ("base", "new")
    )
    assert (base.shots, len(base.support), len(base.source)) == (3, 3 * 4, 0)
    assert (new.shots, len(new.support), len(new.source)) == (0, 0, 3 * 4)
    assert torch.equal(base.support.image, new.source.image)
    assert new.candidates.tolist() == new.target_classes.tolist() == [4, 5, 6, 7]
    inner, held_out = new.rehearsals(1)[0]
    assert set(held_out.label.tolist()) == set(inner.target_classes.tolist()) < set(new.source_classes.tolist())


def test_shots_are_those_that_every_class_has():
    """One class has two training items, the others ten: at K = 4 a method can count on two."""
    labels = {i: FEATURES.classes[y] for i, y in zip(FEATURES.ids, FEATURES.label, strict=True)}
    parts = {i: "test" if n % 14 > (9 if n >= 14 else 1) else "train" for n, i in enumerate(FEATURES.ids)}
    split = kshot.make_split("x", "", labels, FEATURES.classes, parts, sampling="coop")
    for shots, least in ((1, 1), (4, 2), ("all", 2)):
        task = make_episode(FEATURES, split, Setting(shots, 1)).task
        assert task.shots == least
        assert int((task.support.label == 3).sum()) == (10 if shots == "all" else shots)
