"""The encoder run live: only where a method needs it, in whatever process a cell runs, and without a test label."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from worlds import make_split

from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.live import LiveEncoder, encoded
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.run import judge
from xshot_bench.benchmarks.store import Store
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM
from xshot_bench.datasets.feature_cache import FeatureOptions
from xshot_bench.datasets.manifest import Manifest
from xshot_bench.methods.clip import Clip
from xshot_bench.methods.clip_lora import ClipLora
from xshot_bench.methods.coop import CoOp

ROOMY = {"steps": 2, "at_once": 4}


@pytest.fixture(scope="module")
def dataset(colour_folder):
    return Manifest.open(DatasetOptions(root=colour_folder))


@pytest.fixture(scope="module")
def features(dataset, tmp_path_factory):
    """Of lite0-minilm, with the prepared pictures."""
    cache = tmp_path_factory.mktemp("cache")
    return load_features(dataset, Lite0MiniLM.open(""), cache, FeatureOptions(pixels=True))


@pytest.fixture(scope="module")
def live(dataset):
    return pickle.loads(pickle.dumps(LiveEncoder.of(dataset, "lite0-minilm"))).load((), "cpu")  # as it travels


def episode(features, live, shots=1):
    return make_episode(features, make_split(features), Setting(shots, 0), live=live)


def test_the_live_encoder_gives_the_cached_features(features, live):
    made = episode(features, live)
    towers = made.task.towers
    for items in (made.task.source, made.task.support, made.queries):
        with torch.no_grad():
            text, image = towers.text(items.texts.read()), towers.image(items.pixels.read()[:5])
        assert torch.allclose(normalize(text, dim=1), items.text[:], atol=1e-3)  # which were kept as float16
        assert torch.allclose(normalize(image, dim=1), items.image[:5], atol=1e-3)
    prompts = [template.format(name) for template in towers.templates for name in towers.names]
    with torch.no_grad():
        assert torch.allclose(normalize(towers.text(prompts), dim=1), made.task.class_text, atol=1e-3)


def test_items_read_their_own_texts_and_pictures(dataset, features, live):
    made = episode(features, live)
    by_id = {item.id: index for index, item in enumerate(dataset.items)}
    encoder = Lite0MiniLM.open("")
    rows = [by_id[item] for item in made.answers.query_ids]
    assert made.queries.texts.read() == tuple(dataset.items[row].text for row in rows)
    for place in (0, 7):
        assert torch.equal(made.queries.pixels.read()[place], encoder.preprocess(dataset.picture(rows[place])))
    assert made.gallery is made.queries
    task, held_out = made.task.rehearsal(0)
    assert len(held_out.texts) == len(held_out.pixels) == len(held_out)
    first, found = made.task.source, {}
    for feature, text in zip(first.text, first.texts.read(), strict=True):
        found[text] = feature
    assert all(torch.equal(found[text], x) for x, text in zip(held_out.text, held_out.texts.read(), strict=True))
    assert task.towers is made.task.towers


@pytest.mark.parametrize("method", [CoOp(**ROOMY), ClipLora(**ROOMY), ClipLora(score_by="posterior", **ROOMY)])
def test_labels_of_test_items_change_nothing(features, live, method):
    split = make_split(features)
    before = make_episode(features, split, Setting(1, 0), live=live)
    label = features.label.copy()
    tested = [features.ids.index(item) for name in split.target for item in split.test[name]]
    label[tested] = np.random.default_rng(0).permutation(label[tested])
    after = make_episode(dataclasses.replace(features, label=label), split, Setting(1, 0), live=live)
    found = []
    for made in (before, after):
        method.fit(made.task)
        _, (seen,) = encoded(method, made.task, made.queries)
        found.append([method.logits(seen[m][:], m) for m in ("image", "text")])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class EncodesTurned(ClipLora):
    def encode(self, x, modality, raw, task):
        return -super().encode(x, modality, raw, task) if modality == "text" else x


class EmbedsTurned(Clip):
    def embed(self, x, modality):
        return -x if modality == "text" else x


def test_the_judge_scores_the_features_that_a_method_makes(features, live):
    """At step 0 they are the encoder's; turned around they score as if they were so from the first."""
    for method, same in ((ClipLora(steps=0), Clip()), (EncodesTurned(steps=0), EmbedsTurned())):
        numbers = []
        for one in (method, same):
            made = episode(features, live)
            one.fit(made.task)
            numbers.append(judge(one, made)[0])
        assert numbers[0]["mAP"] == pytest.approx(numbers[1]["mAP"], abs=0.005)
        assert numbers[0]["accuracy"] == pytest.approx(numbers[1]["accuracy"], abs=0.03)


def test_towers_are_loaded_for_those_who_need_them_alone(bench, monkeypatch):
    def fail(*_):
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr(LiveEncoder, "load", fail)
    called = bench("--methods", "clip,prototype", "--shots", "1", "--draws", "1", "--format", "json")
    assert called.code == 0, called.err
    called = bench("--methods", "coop", "--shots", "1", "--draws", "1", "--format", "json")
    assert called.code == 1
    assert "the encoder was loaded" in called.err + called.out


def test_an_encoder_without_gradients_is_a_reason(bench):
    called = bench("--methods", "clip,coop,clip_lora", "--shots", "1", "--draws", "1")
    assert called.code == 0, called.err
    assert "gradients in the encoder's towers" in called.out


def test_the_cells_of_others_stay_as_they_are(bench, tmp_path):
    for methods in ("clip", "clip,coop,clip_lora:both"):
        assert bench("--methods", methods, "--shots", "1", "--draws", "1").code == 0
    cells = [record.cell for record in Store(tmp_path / "results").records()]
    assert sorted(cell.method for cell in cells) == ["clip", "clip_lora:both", "coop"]
    features = {cell.method: cell.features for cell in cells}
    assert features["clip_lora:both"] == f"{features['clip']}.pixels"
    assert features["coop"] == features["clip"]


def test_cells_run_in_processes_of_their_own_as_in_this_one(bench, tmp_path, colour_folder):
    numbers = []
    for jobs in ("1", "2"):
        called = bench(
            "--methods", "coop,clip_lora", "--set", "coop.steps=2", "--set", "clip_lora.steps=2", "--shots", "1",
            "--draws", "2", "--datasets", "manifest", "--root", str(colour_folder), "--encoder", "lite0-minilm",
            "--jobs", jobs, "--format", "json", "--force", data=False,
        )  # fmt: skip
        assert called.code == 0, called.err
        numbers.append({record.cell.digest: record.metrics for record in Store(tmp_path / "results").records()})
    assert len(numbers[0]) == 4
    assert numbers[0] == numbers[1]
