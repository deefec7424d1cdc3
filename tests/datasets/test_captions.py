"""Flickr8k, Flickr30k and COCO on small trees in their official layout; instance retrieval from files to recalls."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xshot_bench import InputError
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge
from xshot_bench.datasets import instance
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.coco import COCO
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.flickr8k import Flickr8k
from xshot_bench.datasets.flickr30k import Flickr30k
from xshot_bench.datasets.splitting import to_json

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from colours import ColourEncoder

PLUGIN = str(Path(__file__).resolve().parents[1] / "plugins" / "colours.py")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255,) * 3}
FORMS = ("a {} thing ", "the  {}\n", "{} all over", "something {}", "it is {} .")


def image(name: str, split: str, colour: str, captions: int = 5, **more: Any) -> dict[str, Any]:
    """An entry of Karpathy's list. From the sixth on, captions repeat."""
    sentences = [{"raw": (FORMS * 2)[n].format(colour), "tokens": [], "sentid": n} for n in range(captions)]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": 0, **more}


def build(root: Path, images: list[dict[str, Any]], places: str, listing: str) -> Path:
    """The list and a picture of the colour that each entry's first caption names."""
    for entry in images:
        colour = next(c for c in COLOURS if c in entry["sentences"][0]["raw"])
        folder = root / places / entry.get("filepath", "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), COLOURS[colour]).save(folder / entry["filename"])
    (root / listing).write_text(json.dumps({"images": images, "dataset": "made-up"}))
    return root


def flickr(root: Path, listing: str = "dataset_flickr8k.json", places: str = "Flicker8k_Dataset") -> Path:
    parts = [("red", "train"), ("white", "val"), ("green", "test"), ("blue", "test"), ("yellow", "test")]
    return build(root, [image(f"{c}.jpg", split, c) for c, split in parts], places, listing)


def coco(root: Path) -> Path:
    """Images in two folders, ``restval``, six and seven captions."""
    return build(
        root,
        [
            image("COCO_val2014_1.jpg", "restval", "red", 6, filepath="val2014", cocoid=1),
            image("COCO_val2014_2.jpg", "test", "green", 7, filepath="val2014", cocoid=2),
            image("COCO_train2014_3.jpg", "train", "blue", filepath="train2014", cocoid=3),
            image("COCO_val2014_4.jpg", "val", "white", filepath="val2014", cocoid=4),
            image("COCO_val2014_5.jpg", "test", "yellow", filepath="val2014", cocoid=5),
        ],
        "",
        "dataset_coco.json",
    )


def test_karpathys_list_is_read_in_its_order_with_five_items_an_image(tmp_path: Path) -> None:
    data = Flickr8k.open(DatasetOptions(root=flickr(tmp_path)))
    assert len(data.items) == 25 and data.classes == ("red.jpg", "white.jpg", "green.jpg", "blue.jpg", "yellow.jpg")
    assert [item.id for item in data.items][4:6] == ["red.jpg#4", "white.jpg#0"]
    assert [item.text for item in data.items][:5] == [
        "a red thing", "the red", "red all over", "something red", "it is red .",
    ]  # fmt: skip
    assert [data.parts[f"{c}.jpg#3"] for c in ("red", "white", "green")] == ["train", "val", "test"]
    assert list(data.picture_of) == [n - n % 5 for n in range(25)]
    assert data.picture(7).getpixel((1, 1)) > (240, 240, 240)
    assert any("it has 5 train, 5 val, 15 test items; the published set has 30,000 train" in n for n in data.notes)
    assert not any(data.class_prompts())
    with pytest.raises(InputError, match="no splits for 'kshot'"):
        data.split("kshot")


def test_coco_has_two_folders_restval_and_captions_after_the_fifth(tmp_path: Path) -> None:
    data = COCO.open(DatasetOptions(root=coco(tmp_path / "coco")))
    assert len(data.items) == 25
    assert data.parts["COCO_val2014_1.jpg#0"] == "train"
    assert "3 captions after the fifth of their image are left out" in data.notes
    above = COCO.open(DatasetOptions(root=tmp_path))
    assert above.digest == data.digest
    shutil.move(tmp_path / "coco/train2014", tmp_path / "coco/images/train2014")
    shutil.move(tmp_path / "coco/val2014", tmp_path / "coco/images/val2014")
    assert [item.id for item in COCO.open(DatasetOptions(root=tmp_path / "coco")).items] == [i.id for i in data.items]


def test_flickr30k_in_either_spelling(tmp_path: Path) -> None:
    for place in ("flickr30k-images", "flickr30k_images"):
        root = flickr(tmp_path / place, "dataset_flickr30k.json", place)
        assert len(Flickr30k.open(DatasetOptions(root=root)).items) == 25
    with pytest.raises(InputError, match="none of the folders flickr30k-images"):
        Flickr30k.open(DatasetOptions(root=flickr(tmp_path / "x", "dataset_flickr30k.json", "pictures")))


def test_flickr8ks_own_lists_with_their_traps(tmp_path: Path) -> None:
    """A caption of an image that no list has, one of a file that is none, Windows line ends, an empty last line."""
    root = flickr(tmp_path)
    (root / "dataset_flickr8k.json").unlink()
    text = root / "Flickr8k_text"
    text.mkdir()
    colours = {"trainImages": ["red"], "devImages": ["white"], "testImages": ["green", "blue"]}
    for name, listed in colours.items():
        (text / f"Flickr_8k.{name}.txt").write_bytes(b"".join(f"{c}.jpg\r\n".encode() for c in listed))
    lines = [f"{c}.jpg#{n}\tA {c} thing {n} ." for c in ("red", "white", "green", "blue", "yellow") for n in range(5)]
    lines += ["2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway", ""]
    (text / "Flickr8k.token.txt").write_bytes("\r\n".join(lines).encode())
    data = Flickr8k.open(DatasetOptions(root=root))
    assert len(data.items) == 20 and data.items[6].text == "A white thing 1 ."
    assert list(data.parts.values()) == ["train"] * 5 + ["val"] * 5 + ["test"] * 10
    (text / "Flickr8k.token.txt").write_text("red.jpg A red thing\n")
    with pytest.raises(InputError, match="line 1: expected <image>#<number>, a tab"):
        Flickr8k.open(DatasetOptions(root=root))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda e: e.update(filename="../../out.jpg"), "leads outside the folder"),
        (lambda e: e.update(filepath="/etc"), "there is no file"),
        (lambda e: e.update(split="dev"), "its split is 'dev'"),
        (lambda e: e.update(sentences=[]), "its text is empty"),
        (lambda e: e["sentences"][2].update(raw=" \n"), "image 2, caption 3: its text is empty"),
        (lambda e: e.update(filename="red.jpg"), "is that of image 1, caption 1 too"),
        (lambda e: e.update(filename="gone.jpg"), "there is no file 'Flicker8k_Dataset/gone.jpg'"),
    ],
)
def test_bad_entries_are_all_said_or_left_out(spoil: Any, said: str, tmp_path: Path) -> None:
    root = flickr(tmp_path)
    content = json.loads((root / "dataset_flickr8k.json").read_text())
    spoil(content["images"][1])
    (root / "dataset_flickr8k.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        Flickr8k.open(DatasetOptions(root=root))
    data = Flickr8k.open(DatasetOptions(root=root, skip_bad_items=True))
    assert 20 <= len(data.items) < 25 and any("bad and left out" in note for note in data.notes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": []}', '{"images": [{"filename": "a"}]}', "[" * 100_000])
def test_a_damaged_list_is_named_with_the_remedy(text: str, tmp_path: Path) -> None:
    (flickr(tmp_path) / "dataset_flickr8k.json").write_text(text)
    with pytest.raises(InputError, match="dataset_flickr8k.json is no split file of Karpathy's"):
        Flickr8k.open(DatasetOptions(root=tmp_path))


def test_what_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no dataset_coco.json.*fetch coco"):
        COCO.open(DatasetOptions(root=tmp_path))


class Counting(ColourEncoder):
    def __init__(self) -> None:
        self.pictures, self.texts = 0, 0

    def preprocess(self, picture: Image.Image) -> Any:
        self.pictures += 1
        return super().preprocess(picture)

    def encode_texts(self, texts: list[str]) -> Any:
        self.texts += len(texts)
        return super().encode_texts(texts)


def test_a_picture_and_a_text_are_encoded_once(tmp_path: Path) -> None:
    data = COCO.open(DatasetOptions(root=coco(tmp_path / "coco")))
    encoder = Counting()
    features = load_features(data, encoder, tmp_path / "cache")
    assert features.image.shape == (25, features.text.shape[1]) and features.class_text.shape == (5, 0)
    assert np.array_equal(features.image[5:10], np.repeat(features.image[5:6], 5, axis=0))
    assert not np.array_equal(features.image[4], features.image[5])
    assert encoder.texts == 25
    again = json.loads((tmp_path / "coco/dataset_coco.json").read_text())
    for entry in again["images"]:
        entry["sentences"] = [{"raw": "one text"} for _ in range(5)]
    (tmp_path / "coco/dataset_coco.json").write_text(json.dumps(again))
    encoder = Counting()
    features = load_features(COCO.open(DatasetOptions(root=tmp_path)), encoder, tmp_path / "cache")
    assert encoder.texts == 1 and len(features.text) == 25 and (features.text == features.text[0]).all()


def made_up(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> FeatureSet:
    """Features of captions ``text [n,d]`` of the images ``owner [n]``, whose features are ``image [N,d]``."""
    return FeatureSet(
        image=image[owner].astype(np.float16),
        text=text.astype(np.float16),
        label=owner,
        ids=tuple(f"i{o}#{n}" for n, o in enumerate(owner)),
        classes=tuple(f"i{o}" for o in range(len(image))),
        class_text=np.zeros((len(image), 0), np.float16),
        logit_scale=10.0,
        digest="made-up",
    )


def test_recalls_count_any_of_an_images_texts_and_every_text_by_itself() -> None:
    """By hand: 40 images with three to six captions, all test images, ranked by a full sort of the cosines."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), rng.integers(3, 7, 40))
    image, text = rng.standard_normal((40, 12)), rng.standard_normal((len(owner), 12))
    text += 0.7 * image[owner]
    features = made_up(image, text, owner)
    labels = dict(zip(features.ids, (f"i{o}" for o in owner), strict=True))
    split = instance.make_split("x", "", labels, features.classes, dict.fromkeys(labels, "test"))
    episode = make_episode(features, split, Setting(0, 0))
    method = Registry().load("method", "clip")()
    method.fit(episode.task)
    numbers, ap, _ = judge(method, episode)

    images, texts = (x.astype(np.float32) for x in (features.image, features.text))
    first = [int(np.flatnonzero(owner == o)[0]) for o in range(40)]
    cosine = (images[first] @ texts.T) / np.linalg.norm(images[first], axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    for way, scores, own in (
        ("i2t", cosine, owner[None] == np.arange(40)[:, None]),
        ("t2i", cosine.T, owner[:, None] == np.arange(40)),
    ):
        right = np.take_along_axis(own, np.argsort(-scores, axis=1), axis=1)
        for k in (1, 5, 10):
            assert numbers[f"{way}/R_{k}"] == pytest.approx(right[:, :k].any(1).mean())
        each = [np.mean((1 + np.arange(row.sum())) / (1 + np.flatnonzero(row))) for row in right]
        counted = each if way == "i2t" else [np.mean(np.array(each)[owner == o]) for o in range(40)]
        np.testing.assert_allclose(ap[way], counted, atol=1e-9)
    assert len(ap) == 40 and "accuracy" not in numbers


def test_equal_captions_of_two_images_tie_and_favour_nobody() -> None:
    """Each image shares its only caption with one other: its own comes first in half of the cases, in any order."""
    rng = np.random.default_rng(1)
    image = rng.standard_normal((400, 128))
    text = np.repeat(image[::2] + image[1::2], 2, axis=0)
    found = []
    for order in (np.arange(400), np.arange(400)[::-1]):
        features = made_up(image[order], text[order], np.arange(400))
        labels = {item: item.partition("#")[0] for item in features.ids}
        split = instance.make_split("x", "", labels, features.classes, dict.fromkeys(labels, "test"))
        episode = make_episode(features, split, Setting(0, 0))
        method = Registry().load("method", "clip")()
        method.fit(episode.task)
        numbers = judge(method, episode)[0]
        assert numbers["i2t/R_5"] == 1
        found.append(numbers["i2t/R_1"])
    assert all(0.4 < recall < 0.6 for recall in found)


def test_the_split_says_who_learns_and_who_is_tested(tmp_path: Path) -> None:
    data = Flickr8k.open(DatasetOptions(root=flickr(tmp_path)))
    split = data.split("instance")
    nothing, everything = split.roles(0, 0, "test"), split.roles("all", 3, "test")
    assert nothing.source == nothing.support == everything.support == ()
    assert everything.source == tuple(f"{c}.jpg#{n}" for c in ("red", "white") for n in range(5))
    assert everything.validation_classes == ("white.jpg",) and everything.source_classes == ("red.jpg", "white.jpg")
    for roles in (nothing, everything):
        assert roles.image_queries == ("green.jpg#0", "blue.jpg#0", "yellow.jpg#0") == roles.image_gallery
        assert len(roles.text_queries) == 15 and roles.text_queries == roles.text_gallery
        assert roles.candidates == roles.target_classes == ("green.jpg", "blue.jpg", "yellow.jpg")
    assert to_json(split).count("\n") == 4 + 3 * 2 + 5  # a line an image
    with pytest.raises(InputError, match="flickr8k/fold1 needs 1000 test images; flickr8k has 3"):
        data.split("instance", "fold1")


def test_folds_are_the_thousands_of_the_test_images_in_their_order() -> None:
    labels = {f"i{o}#{n}": f"i{o}" for o in range(2010) for n in range(2)}
    parts = {item: "train" if label in ("i0", "i1") else "test" for item, label in labels.items()}
    classes = [f"i{o}" for o in range(2010)]
    whole, first, second = (instance.make_split("coco", v, labels, classes, parts) for v in ("", "fold1", "fold2"))  # type: ignore[arg-type]
    assert list(whole.test) == classes[2:] and list(first.test) == classes[2:1002]
    assert list(second.test) == classes[1002:2002] and second.name == "coco/fold2"
    assert len({whole.digest, first.digest, second.digest}) == 3
    with pytest.raises(InputError, match="coco/fold3 needs 3000 test images"):
        instance.make_split("coco", "fold3", labels, classes, parts)  # type: ignore[arg-type]


def test_a_run_reports_recalls_and_methods_that_need_classes_decline(bench: Any, tmp_path: Path) -> None:
    root = flickr(tmp_path / "data")
    ask = ("--protocol", "instance", "--datasets", "flickr8k", "--root", str(root), "--encoder", "colours")
    ask += ("--plugin", PLUGIN, "--methods", "clip,random,linear_probe,prototype,flexclip", "--draws", "2")
    called = bench(*ask, "--shots", "0,all", "--format", "json", data=False)
    assert called.code == 0, called.err
    rows = {(row["method"], row["shots"]): row for row in called.table["rows"]}
    assert rows["clip", 0]["mean"]["mean"] == rows["clip", 0]["recall"]["t2i/R_1"] == 1
    assert rows["random", 0]["recall"]["i2t/R_1"] < 1 == rows["random", 0]["recall"]["t2i/R_5"]
    for method in ("linear_probe", "prototype", "flexclip"):
        assert rows[method, "all"]["draws"] == 0 and "declined: " in rows[method, "all"]["reason"]
    shown = bench(*ask, "--shots", "0", data=False).out
    assert "i2t R@1" in shown and "t2i R@10" in shown and "relevant = its own texts or image" in shown
    assert "3 test images and their 15 texts" in shown
    refused = bench(*ask, "--shots", "1", data=False)
    assert refused.code == 2 and "at most 0 shots a class, not 1. Ask for fewer with --shots, or for all" in refused.err
