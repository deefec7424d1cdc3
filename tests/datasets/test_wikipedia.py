"""Wikipedia: its official layout with broken markup and dots in ids, its features, CLIP4CMR's layout."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import WIKIPEDIA, clip4cmr, pairs, save_picture, wikipedia, write

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.wikipedia import Wikipedia, article

REAL = Path(__file__).resolve().parents[3] / "shared/data/wikipedia"
COUNTS = {
    "art": (138, 34), "biology": (272, 88), "geography": (244, 96), "history": (248, 85), "literature": (202, 65),
    "media": (178, 58), "music": (186, 51), "royalty": (144, 41), "sport": (214, 71), "warfare": (347, 104),
}  # fmt: skip


def read(root: Path, skip: bool = False) -> Wikipedia:
    return Wikipedia.open(DatasetOptions(root, skip))


@pytest.mark.parametrize("lists", ["", "wikipedia_info"])
def test_the_official_layout_is_read(tmp_path, lists):
    expected = wikipedia(tmp_path, lists=lists)
    data = read(tmp_path)
    assert pairs(data) == expected
    assert data.classes == WIKIPEDIA
    assert not data.has_features
    assert data.notes == ("it has 40 train, 20 test items; the published set has 2,173 train, 693 test",)
    name = hashlib.md5(b"picture test 3").hexdigest()
    save_picture(tmp_path / "again.jpg", name)
    index = [i.id for i in data.items].index(expected[43].id)
    assert data.picture(index).tobytes() == read_rgb(tmp_path / "again.jpg")


def read_rgb(path: Path) -> bytes:
    from PIL import Image

    return Image.open(path).convert("RGB").tobytes()


def test_folders_are_named_as_the_category_list_says(tmp_path):
    folders = [f"{name.title()} & more" for name in WIKIPEDIA]
    expected = wikipedia(tmp_path, folders=folders)
    assert pairs(read(tmp_path)) == expected


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("", ""),
        ("<article></article>", ""),
        ("<text></text>", ""),
        ("<TEXT>no</TEXT>", ""),
        ("<text lang='en'>a</text><text>b</text>", "a"),
        ("<text>2 < 3 &lt; 4 <b>bold</b> &nbsp;&#233;</text>", "2 < 3 < 4 bold é"),
    ],
)
def test_the_body_stands_between_the_marks(xml, text):
    assert article(xml) == text


def test_all_that_is_bad_is_said_at_once(tmp_path):
    expected = wikipedia(tmp_path)
    lines = (tmp_path / "trainset_txt_img_cat.list").read_text().splitlines()
    texts, images, _ = zip(*(line.split("\t") for line in lines), strict=True)
    (tmp_path / "texts" / f"{texts[0]}.xml").unlink()
    (tmp_path / "images" / "biology" / f"{images[1]}.jpg").write_bytes(b"no picture")
    write(tmp_path / "texts" / f"{texts[2]}.xml", "<article><text> </text></article>")
    (tmp_path / "images" / "history" / f"{images[3]}.jpg").unlink()
    more = [
        "0" * 32 + "-1\t" + "0" * 32 + "\t11",
        "../../../etc/passwd\t" + "0" * 32 + "\t1",
        f"{texts[9]}\t{images[9]}\t10",
    ]
    write(tmp_path / "trainset_txt_img_cat.list", "\n".join([*lines, *more]) + "\n")
    with pytest.raises(InputError) as error:
        read(tmp_path)
    said = str(error.value)
    assert "7 of 63 items are bad" in said
    for place, words in (
        (1, f"texts/{texts[0]}.xml"), (2, "is not a picture"), (3, "text is empty"), (4, "no file 'images/history/"),
        (41, "not among 1 to 10"), (42, "leads outside the folder"),
        (43, "is that of trainset_txt_img_cat.list line 10"),
    ):  # fmt: skip
        (line,) = [line for line in said.splitlines() if f"line {place}: " in line]
        assert words in line
    data = read(tmp_path, skip=True)
    assert pairs(data) == expected[4:]
    assert data.notes[0].startswith("7 of 63 items are bad and left out: ")
    for kind in ("there is no file … (1)", "its text is empty (1)", "… is not a picture of a known format (1)"):
        assert kind in data.notes[0]


def test_a_malformed_list_or_an_empty_folder_is_one_message(tmp_path):
    with pytest.raises(InputError, match="no trainset_txt_img_cat.list. Expected: "):
        read(tmp_path)
    wikipedia(tmp_path)
    write(tmp_path / "testset_txt_img_cat.list", "a b 3\n")
    with pytest.raises(InputError, match="testset_txt_img_cat.list, line 1: expected text id"):
        read(tmp_path)
    with pytest.raises(InputError, match="--root DIR"):
        Wikipedia.open(DatasetOptions())


def test_a_picture_that_the_set_has_twice_is_said(tmp_path):
    wikipedia(tmp_path)
    files = sorted((tmp_path / "images" / "art").iterdir())
    files[0].write_bytes(files[1].read_bytes())
    assert "1 items have a picture that another item has too" in read(tmp_path).notes


def test_checked_pictures_are_remembered_until_they_change(tmp_path):
    wikipedia(tmp_path / "data")
    options = DatasetOptions(tmp_path / "data", cache=tmp_path / "cache")
    first = Wikipedia.open(options)
    file = next((tmp_path / "data/images/art").iterdir())
    about, content = file.stat(), file.read_bytes()
    file.write_bytes(bytes(len(content)))  # as if unchanged: not even read
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert Wikipedia.open(options).digest == first.digest
    os.utime(file)
    with pytest.raises(InputError, match="not a picture"):
        Wikipedia.open(options)
    (memory,) = (tmp_path / "cache/pictures").iterdir()
    memory.write_text("damaged")
    file.write_bytes(content)
    assert Wikipedia.open(options).digest == first.digest


def test_class_splits(tmp_path):
    wikipedia(tmp_path)
    data = read(tmp_path)
    assert data.split().target == ("art", "geography", "literature", "music", "sport")
    assert data.split("xshot", "odd").target == ("biology", "history", "media", "royalty", "warfare")
    assert data.split("xshot", "last").target == WIKIPEDIA[5:]
    assert len({data.split("xshot", v).target for v in ("", "odd", "last", "b", "c")}) == 5
    with pytest.raises(InputError, match="wikipedia/odd, wikipedia/last"):
        data.split("xshot", "first")


def test_prompts_have_the_long_names(tmp_path):
    wikipedia(tmp_path)
    prompts = read(tmp_path).class_prompts()
    assert prompts[0] == ["a photo of art and architecture."]
    assert prompts[1] == ["a photo of biology."]


@pytest.mark.parametrize(("base", "images", "texts"), [(0, "wiki_image", "text"), (1, "images", "texts")])
def test_clip4cmrs_layout(tmp_path, base, images, texts):
    expected = clip4cmr(tmp_path, WIKIPEDIA, base, images, texts)
    assert pairs(read(tmp_path)) == expected


def test_clip4cmrs_bad_lines_and_labels(tmp_path):
    clip4cmr(tmp_path, WIKIPEDIA, 0)
    with (tmp_path / "split/train.txt").open("a") as file:
        file.write("train-0.0\n../../secret:3\nnobody:4\n")
    (tmp_path / "text/train-1.1.json").write_text("no json")
    (tmp_path / "text/train-2.2.json").write_text('{"text": "a"}')
    with pytest.raises(InputError) as error:
        read(tmp_path)
    said = str(error.value)
    assert "5 of 53 items are bad" in said
    assert "line 3: its text cannot be read (its file holds no JSON string)" in said
    for words in ("line 31: it is not ID:LABEL", "line 32: its text cannot be read ('text/../../secret.json' leads",
                  "line 33: its text cannot be read", "line 2: its text cannot be read"):  # fmt: skip
        assert words in said
    (tmp_path / "split/test.txt").write_text("test-0.0:17\n")
    with pytest.raises(InputError, match="go from 0 to 17. Expected: the numbers of 10 classes"):
        read(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/wikipedia")
def test_the_official_features_and_lists_come_out_as_published():
    from scipy.io import loadmat

    data = read(REAL)
    features, raw = data.features(), loadmat(REAL / "raw_features.mat")
    assert (features.image.dtype, features.joint, features.class_text.shape) == (np.float32, False, (10, 0))
    assert np.array_equal(features.image, np.vstack([raw["I_tr"], raw["I_te"]]).astype(np.float32))
    assert np.array_equal(features.text, np.vstack([raw["T_tr"], raw["T_te"]]).astype(np.float32))
    lines = [line.split() for f in ("train", "test") for line in (REAL / f"{f}set_txt_img_cat.list").open()]
    assert features.ids == tuple(text for text, _, _ in lines)
    assert features.label.tolist() == [int(category) - 1 for _, _, category in lines]
    split = data.split()
    assert {c: (len(split.train[c]), len(split.test[c])) for c in data.classes} == COUNTS
    assert Counter(data.parts.values()) == {"train": 2173, "test": 693}
    assert data.notes == ()
    with pytest.raises(InputError, match="features and no pictures"):
        data.picture(0)


def test_features_that_do_not_fit_the_lists(tmp_path):
    from scipy.io import savemat

    wikipedia(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match="neither images/ nor raw_features.mat"):
        read(tmp_path)
    arrays = {"I_tr": np.ones((39, 4)), "T_tr": np.ones((40, 3)), "I_te": np.ones((20, 4)), "T_te": np.ones((20, 3))}
    savemat(tmp_path / "raw_features.mat", arrays)
    with pytest.raises(InputError, match="'train' has 39 images, 40 texts, 40 labels"):
        read(tmp_path)
    arrays["I_tr"] = np.ones((40, 4))
    arrays["T_te"][[3, 7], 1] = np.nan, np.inf
    savemat(tmp_path / "raw_features.mat", arrays)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert "2 of 60 items are bad" in str(error.value)
    assert "test row 4: it has a value that is not finite" in str(error.value)
    assert len(read(tmp_path, skip=True).items) == 58
