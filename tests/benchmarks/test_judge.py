"""The judge as a whole: floors and ceilings that must come out, and a change detector for the protocol's version."""

import numpy as np
import pytest
from torch import Tensor
from worlds import make_features, make_split

from xshot_bench.benchmarks import protocol
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.metrics import expected_random_map
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge
from xshot_bench.datasets import instance, kshot
from xshot_bench.methods.base import Method, Modality, PosteriorMethod, Task

# Not truths: what this version gives. Where they change, stored results and new ones must not be mixed.
SEEN = {
    "xshot/1": {"cosine": 0.7139, "posterior": 0.8961},
    "kshot/1": {"cosine": 0.4401, "posterior": 0.6610, "accuracy": 0.7679},
    "instance/1": {"cosine": 0.4706, "i2t/R_5": 0.75},
}


class ByName(PosteriorMethod):
    """Class posterior by the class texts."""

    def fit(self, task: Task) -> None:
        self.names = task.class_text[task.candidates]

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.names.T


def score(name: str, features, setting: Setting) -> dict[str, float]:
    return judged(features, make_split(features), setting, Registry().load("method", name)())


def judged(features, split, setting: Setting, method: Method) -> dict[str, float]:
    episode = make_episode(features, split, setting)
    method.fit(episode.task)
    return judge(method, episode)[0]


def test_a_change_of_numbers_raises_the_protocols_version():
    features = make_features(noise=1.6)
    labels = {i: features.classes[y] for i, y in zip(features.ids, features.label, strict=True)}
    splits = {
        "xshot": make_split(features),
        "kshot": kshot.make_split("x", "", labels, features.classes),
        "instance": instance.make_split("x", "", labels, features.classes, dict.fromkeys(labels, "test")),
    }
    for name, split in splits.items():
        setting = Setting(0 if name == "instance" else 2, 1)
        cosine = judged(features, split, setting, Registry().load("method", "clip")())
        posterior = judged(features, split, setting, ByName())
        numbers = cosine | {"cosine": cosine["mAP"], "posterior": posterior["mAP"]}
        seen = SEEN[protocol.VERSIONS[name]]
        assert {key: numbers[key] for key in seen} == pytest.approx(seen, abs=1e-3), (
            f"raise the version of {name} and note the new numbers"
        )


@pytest.mark.parametrize("gallery", ["test", "train", "all"])
def test_perfect_features_are_ranked_perfectly(gallery):
    assert score("clip", make_features(noise=0.0), Setting(1, 0, gallery))["mAP"] == 1


@pytest.mark.parametrize("gallery", ["test", "train", "all"])
def test_random_rankings_reach_the_floor(gallery):
    features = make_features(classes=12, per_class=20)
    got, floors = [], []
    for draw in range(3):
        episode = make_episode(features, make_split(features), Setting(1, draw, gallery))
        key = episode.answers.key["i2t"]
        floors.append(expected_random_map(key.query_label, key.gallery_label))
        got.append(score("random", features, Setting(1, draw, gallery))["mAP"])
    assert np.mean(got) == pytest.approx(np.mean(floors), abs=0.04)


def test_the_recall_of_pairs_is_reported_where_pairs_are_in_the_gallery():
    features = make_features(noise=0.3)
    numbers = score("clip", features, Setting(1, 0, "test"))
    assert 0 < numbers["t2i/mAP_50"] <= numbers["t2i/mAP"]
    assert 0 < numbers["i2t/R_1"] <= numbers["i2t/R_5"] <= numbers["i2t/R_10"] <= 1
    assert "i2t/R_1" not in score("clip", features, Setting(1, 0, "train"))


def test_what_was_ranked_first_is_kept_and_agrees_with_the_numbers():
    features = make_features(noise=0.8)
    setting = Setting(1, 0, "all")
    episode = make_episode(features, make_split(features), setting)
    method = Registry().load("method", "clip")()
    method.fit(episode.task)
    numbers, ap, precision = judge(method, episode)
    label = dict(zip(features.ids, features.label, strict=True))
    image, text = (dict(zip(features.ids, unit(x), strict=True)) for x in (features.image, features.text))
    gallery = list(episode.answers.key["i2t"].gallery_ids)
    for direction, ask, answer in (("i2t", image, text), ("t2i", text, image)):
        for row in ap.to_dict("records"):
            assert row["class"] == features.classes[label[row["query"]]]
            scores = {item: float(ask[row["query"]] @ answer[item]) for item in gallery}
            assert row[f"{direction}_first"] == sorted(gallery, key=scores.__getitem__, reverse=True)[:10]
            right = [label[item] == label[row["query"]] for item in row[f"{direction}_first"]]
            assert row[f"{direction}_right"] == right
        curve = precision[direction]
        assert len(curve) == 11 and curve == sorted(curve, reverse=True)
        assert min(curve) <= numbers[f"{direction}/mAP"] <= max(curve)


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
