"""CoOp's eleven datasets on small trees in their official layout, with each trap planted; DTD's real lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xshot_bench import InputError
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.datasets._coop import CoOpDataset
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.dtd import DTD
from xshot_bench.datasets.fgvc_aircraft import FGVCAircraft
from xshot_bench.datasets.imagenet import ImageNet

COOP = Path(__file__).resolve().parents[3] / "shared" / "data" / "coop"
SPLIT_FILES = {  # dataset: its folder, the folder of images in it, its split file
    "caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "oxford_pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json"),
    "stanford_cars": ("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "flowers102": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "food101": ("food-101", "images", "split_zhou_Food101.json"),
    "sun397": ("sun397", "SUN397", "split_zhou_SUN397.json"),
    "dtd": ("dtd", "images", "split_zhou_DescribableTextures.json"),
    "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
    "ucf101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
}
PROMPTS = {  # what "Apply_Eye-Makeup" becomes
    "caltech101": "a photo of a Apply Eye-Makeup.",
    "oxford_pets": "a photo of a Apply Eye-Makeup, a type of pet.",
    "stanford_cars": "a photo of a Apply Eye-Makeup.",
    "flowers102": "a photo of a Apply Eye-Makeup, a type of flower.",
    "food101": "a photo of Apply Eye-Makeup, a type of food.",
    "sun397": "a photo of a Apply Eye-Makeup.",
    "dtd": "Apply Eye-Makeup texture.",
    "eurosat": "a centered satellite photo of Apply Eye-Makeup.",
    "ucf101": "a photo of a person doing Apply Eye-Makeup.",
}
Lists = dict[str, list[list[Any]]]


def lists() -> Lists:
    """Class 2 stands first and class 0 has no validation images; nothing is sorted."""
    return {
        "train": [["c/9.jpg", 2, "striped"], ["b/7.jpg", 1, "Apply_Eye-Makeup"], ["c/1.jpg", 2, "striped"],
                  ["a/3.jpg", 0, "zigzagged"], ["b/2.jpg", 1, "Apply_Eye-Makeup"], ["a/1.jpg", 0, "zigzagged"]],
        "val": [["b/4.jpg", 1, "Apply_Eye-Makeup"], ["c/2.jpg", 2, "striped"]],
        "test": [["a/8.jpg", 0, "zigzagged"], ["c/3.jpg", 2, "striped"], ["b/1.jpg", 1, "Apply_Eye-Makeup"]],
    }  # fmt: skip


def build(root: Path, name: str, content: Lists) -> Path:
    """The dataset's folder in ``root``: its split file, and a small picture for each entry."""
    folder, images, split_file = SPLIT_FILES[name]
    place = root / folder
    for number, (path, *_) in enumerate(row for part in content.values() for row in part):
        file = place / images / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4 + number, 3), 20 * number).save(file)
    (place / split_file).write_text(json.dumps(content, indent=4))
    return place


def opened(name: str, root: Path, **options: Any) -> CoOpDataset:
    return Registry().load("dataset", name).open(DatasetOptions(root=root, **options))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_split_file_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    """Class names by number from all parts, lists in their order, val without one class, underscores as spaces."""
    place = build(tmp_path, name, lists())
    data = opened(name, place)
    assert data.classes == ("zigzagged", "Apply_Eye-Makeup", "striped")
    paths = [row[0] for part in lists().values() for row in part]
    assert [item.id for item in data.items] == paths
    assert [item.label for item in data.items][:3] == ["striped", "Apply_Eye-Makeup", "striped"]
    assert data.items[1].text == PROMPTS[name] == data.class_prompts()[1][0]
    assert list(data.parts.values()) == ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    split = data.split("kshot")
    assert list(split.train) == ["striped", "Apply_Eye-Makeup", "zigzagged"]
    assert split.train["striped"] == ("c/9.jpg", "c/1.jpg") and "zigzagged" not in split.val
    assert split.target == data.classes and split.sampling == "coop"
    assert [data.picture(n).size for n in range(3)] == [(4, 3), (5, 3), (6, 3)] and data.picture(0).mode == "RGB"
    assert opened(name, tmp_path).digest == data.digest  # the folder above is as good
    note = next(note for note in data.notes if "published" in note)
    assert "it has 6 train, 2 val, 3 test items; the published set has" in note
    with pytest.raises(InputError, match="no splits for 'xshot'"):
        data.split("xshot")


def test_the_real_lists_of_dtd_give_the_official_totals_and_the_published_samples(tmp_path: Path) -> None:
    if not COOP.is_dir():
        pytest.skip("needs ../shared/data/coop, the published lists and samples of DTD")
    listed = COOP / "split_zhou_DescribableTextures.json"
    (tmp_path / "split_zhou_DescribableTextures.json").write_bytes(listed.read_bytes())
    paths = [row[0] for part in json.loads(listed.read_text()).values() for row in part]
    for folder in {path.split("/")[0] for path in paths}:
        (tmp_path / "images" / folder).mkdir(parents=True)
    for path in paths:
        (tmp_path / "images" / path).write_bytes(b"x")
    data = opened("dtd", tmp_path)
    assert not any("published" in note for note in data.notes)
    assert len(data.classes) == 47 and data.classes[0] == "banded"
    for shots, seed in ((4, 1), (16, 2)):
        published = json.loads((COOP / f"dtd-shot_{shots}-seed_{seed}.json").read_text())
        roles = data.split("kshot").roles(shots, seed, "test")
        for part, ids in (("train", roles.support), ("val", roles.validation)):
            files = [row["impath"].removeprefix("./data/dtd/images/") for row in published[part]["data"]]
            assert list(ids) == files
            assert [data.labels[i] for i in ids] == [row["classname"] for row in published[part]["data"]]


def test_classes_of_one_name_are_told_apart_and_prompted_alike(tmp_path: Path) -> None:
    content = lists()
    for part in content.values():
        for row in part:
            row[2] = "sunglasses" if row[1] else "zigzagged"
    data = opened("food101", build(tmp_path, "food101", content))
    assert data.classes == ("zigzagged", "sunglasses (class 1)", "sunglasses (class 2)")
    assert [texts[0] for texts in data.class_prompts()][1:] == ["a photo of sunglasses, a type of food."] * 2


def plant(place: Path, content: Lists, kind: str) -> str:
    """Spoil one entry or file; returns what the message must say."""
    row = content["train"][1]
    if kind == "missing":
        (place / "images" / row[0]).unlink()
        return "there is no file 'images/b/7.jpg'"
    if kind == "empty":
        (place / "images" / row[0]).write_bytes(b"")
        return "'images/b/7.jpg' is empty"
    if kind == "twice":
        content["test"].append(["c/9.jpg", 2, "striped"])
        return "its id 'c/9.jpg' is that of train (item 1) too"
    if kind == "renamed":
        row[2] = "other"
        return "class 1 is 'Apply_Eye-Makeup' here and 'other' before"
    row[0] = {"above": "../../secret.jpg", "absolute": str(place.parent / "secret.jpg"), "inner": "b/../../../s.jpg"}[
        kind
    ]
    return "leads outside the folder" if kind != "absolute" else "there is no file"


@pytest.mark.parametrize("kind", ["missing", "empty", "twice", "renamed", "above", "absolute", "inner"])
def test_bad_entries_are_all_said_or_left_out(kind: str, tmp_path: Path) -> None:
    content = lists()
    place = build(tmp_path, "dtd", content)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.jpg")
    said = plant(place, content, kind)
    (place / SPLIT_FILES["dtd"][2]).write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(said)) as error:
        opened("dtd", place)
    assert "--skip-bad-items" in str(error.value)
    data = opened("dtd", place, skip_bad_items=True)
    assert any("bad and left out" in note for note in data.notes)
    assert "without these, its draws are not CoOp's" in data.notes
    assert len(data.items) < len([row for part in content.values() for row in part])


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: "[]",
        lambda c: "{",
        lambda c: json.dumps({"train": [], "val": []}),
        lambda c: json.dumps(c | {"val": [["a", "0", "b"]]}),
        lambda c: json.dumps(c | {"val": [["a", True, "b"]]}),
        lambda c: json.dumps(c | {"test": [["a", 0]]}),
        lambda c: json.dumps(c | {"test": ["abc"]}),
        lambda c: "[" * 100_000,
    ],
)
def test_a_damaged_split_file_is_named_with_the_remedy(damage: Any, tmp_path: Path) -> None:
    place = build(tmp_path, "dtd", lists())
    (place / SPLIT_FILES["dtd"][2]).write_text(damage(lists()))
    with pytest.raises(InputError, match="split_zhou_DescribableTextures.json is no split file of CoOp's"):
        opened("dtd", place)


def test_what_lacks_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no split_zhou_SUN397.json.*fetch sun397"):
        opened("sun397", tmp_path)
    with pytest.raises(InputError, match="Give it with --root DIR"):
        DTD.open(DatasetOptions())
    with pytest.raises(InputError, match="is not a folder"):
        opened("dtd", tmp_path / "nowhere")


def test_the_digest_follows_lists_names_and_files(tmp_path: Path) -> None:
    place = build(tmp_path, "dtd", lists())
    digests = [opened("dtd", place).digest]
    Image.new("L", (90, 90)).save(place / "images/c/9.jpg")
    digests.append(opened("dtd", place).digest)
    content = lists()
    content["train"].reverse()
    (place / SPLIT_FILES["dtd"][2]).write_text(json.dumps(content))
    digests.append(opened("dtd", place).digest)
    assert len(set(digests)) == 3


def aircraft(root: Path) -> Path:
    """Names with blanks and slashes; the numbers of the classes are the lines of variants.txt."""
    place = root / "fgvc_aircraft"
    (place / "images").mkdir(parents=True)
    (place / "variants.txt").write_text("F-16A/B\n707-320\nCessna 172\n")
    shown = {"train": ["0034309 707-320", "0034958 F-16A/B", "0037511 Cessna 172", "0034310 707-320"],
             "val": ["1056475 Cessna 172"], "test": ["1514522 F-16A/B", "0747566 707-320", "1 Cessna 172"]}  # fmt: skip
    for part, lines in shown.items():
        (place / f"images_variant_{part}.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            Image.new("RGB", (3, 3)).save(place / "images" / f"{line.split()[0]}.jpg")
    return place


def test_aircraft_from_its_own_lists(tmp_path: Path) -> None:
    place = aircraft(tmp_path)
    data = opened("fgvc_aircraft", place)
    assert data.classes == ("F-16A/B", "707-320", "Cessna 172")
    assert data.items[0].id == "0034309.jpg" and data.items[0].label == "707-320"
    assert data.class_prompts()[0] == ["a photo of a F-16A/B, a type of aircraft."]
    assert list(data.split("kshot").train) == ["707-320", "F-16A/B", "Cessna 172"]
    assert [len(data.split("kshot").roles("all", 1, "test").validation)] == [1]
    (place / "images_variant_val.txt").write_text("1056475 Cessna 17\n")
    with pytest.raises(InputError, match="'Cessna 17' is not among the classes of variants.txt"):
        FGVCAircraft.open(DatasetOptions(root=place))
    (place / "images_variant_val.txt").unlink()
    with pytest.raises(InputError, match="images_variant_val.txt cannot be read"):
        FGVCAircraft.open(DatasetOptions(root=place))


def imagenet(root: Path) -> Path:
    """Three classes, two of one name; hidden files and stray files; the name of a fourth that is not there."""
    place = root / "imagenet"
    for part, count in (("train", 3), ("val", 2)):
        for folder in ("n03", "n01", "n02"):
            (place / "images" / part / folder).mkdir(parents=True)
            for n in reversed(range(count)):
                Image.new("RGB", (3, 3)).save(place / "images" / part / folder / f"{folder}_{n}.JPEG")
            (place / "images" / part / folder / ".DS_Store").write_bytes(b"x")
        (place / "images" / part / "README").write_text("stray")
    (place / "classnames.txt").write_text("n02 sunglasses\nn01 great white shark\nn04 crane bird\nn03 sunglasses\n")
    return place


def test_imagenet_from_its_folders(tmp_path: Path) -> None:
    """Numbers follow the folders' names, files are sorted, validation images are the test items and choose nothing."""
    data = opened("imagenet", imagenet(tmp_path))
    assert data.classes == ("great white shark", "sunglasses (class 1)", "sunglasses (class 2)")
    assert [item.id for item in data.items][:4] == [f"train/n01/n01_{n}.JPEG" for n in range(3)] + [
        "train/n02/n02_0.JPEG"
    ]
    split = data.split("kshot")
    assert not split.val and [len(ids) for ids in split.test.values()] == [2, 2, 2]
    prompts = data.class_prompts()
    assert [len(texts) for texts in prompts] == [7, 7, 7] and prompts[1] == prompts[2]
    assert (
        prompts[0][0] == "itap of a great white shark." and prompts[0][6] == "a photo of the small great white shark."
    )
    assert data.items[0].text == prompts[0][0]
    assert any("1,281,167 train, 50,000 test" in note for note in data.notes)


def test_imagenet_with_unsorted_validation_images_or_unknown_folders_is_refused(tmp_path: Path) -> None:
    place = imagenet(tmp_path)
    (place / "images/train/n99").mkdir()
    with pytest.raises(InputError, match="'n99' is not in classnames.txt"):
        ImageNet.open(DatasetOptions(root=place))
    (place / "images/train/n99").rmdir()
    flat = place / "images/val"
    for folder in ("n01", "n02", "n03"):
        for file in (flat / folder).iterdir():
            file.unlink()
        (flat / folder).rmdir()
    (flat / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    with pytest.raises(InputError, match="no folders of classes"):
        ImageNet.open(DatasetOptions(root=place))


def test_a_run_in_the_protocol_shows_accuracy_and_says_what_is_short(bench: Any, tmp_path: Path) -> None:
    """Coloured pictures named for their colours: every method that knows the prompts is right."""
    rng = np.random.default_rng(0)
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
    content: Lists = {"train": [], "val": [], "test": []}
    for part, count in (("train", 3), ("val", 2), ("test", 4)):
        for number, name in enumerate(colours):
            for n in range(count - (part == "train" and name == "blue")):
                content[part].append([f"{part}{name}{n}.png", number, name])
    place = build(tmp_path, "dtd", content)
    for part in content.values():
        for path, number, _ in part:
            pixels = 255 * (0.8 * np.array([*colours.values()][number]) + 0.2 * rng.random((8, 8, 3)))
            Image.fromarray(pixels.astype(np.uint8)).save(place / "images" / path)
    ask = ("--protocol", "kshot", "--datasets", "dtd,dtd/base,dtd/new", "--root", str(place), "--draws", "2")
    ask += ("--encoder", "colours", "--plugin", str(Path(__file__).parents[1] / "plugins" / "colours.py"))
    called = bench(*ask, "--methods", "clip,linear_probe", "--shots", "3,all", "--format", "json", data=False)
    assert called.code == 0, called.err
    rows = {(row["dataset"], row["method"], row["shots"]): row for row in called.table["rows"]}
    assert len(rows) == 12
    assert all(rows["dtd", "clip", shots]["accuracy"] == 1 for shots in (3, "all"))
    assert rows["dtd/base", "linear_probe", "all"]["accuracy"] == 1
    assert "declined" in rows["dtd/new", "linear_probe", 3]["reason"]
    assert "1 classes have fewer than 3 training items, and give all they have: blue (2)" in called.err
    assert "its class's first prompt" in called.err
    shown = bench(*ask, "--methods", "clip", "--shots", "3", data=False)
    assert "top-1" in shown.out and "100.0" in shown.out
