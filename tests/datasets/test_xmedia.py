"""XMediaNet and XMedia: published features in their kinds of file, and the user's own metadata for the raw set."""

import numpy as np
import pytest
from layouts import clip4cmr, dadn, pairs, save_picture, tables, write
from scipy.io import savemat

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.xmedia import XMedia
from xshot_bench.datasets.xmedianet import XMediaNet

NUMBERED = tuple(f"class {n}" for n in range(1, 201))
PARTS = ("train", "train", "train", "val", "test")


def test_xmedianet_from_dadns_dump(tmp_path):
    made = tables(200, train=2, test=2)
    dadn(tmp_path, made, 200)
    data = XMediaNet.open(DatasetOptions(tmp_path))
    assert data.has_features
    assert data.classes == NUMBERED
    assert data.features().label.tolist() == np.concatenate([t.label for t in made.values()]).tolist()
    assert np.allclose(data.features().image[400:], made["test"].image)
    assert data.split().target == NUMBERED[::2]
    assert data.split("xshot", "last").target == NUMBERED[100:]
    assert data.notes == ("it has 400 train, 400 test items; the published set has 32,000 train, 8,000 test",)


def test_xmedianet_from_its_matlab_file_with_class_names(tmp_path):
    made = tables(200, train=2, test=2)
    label = np.concatenate([made["train"].label, made["test"].label])[:, None] + 1
    savemat(tmp_path / "XMediaNetFeatures.mat",
            {"I_tr": made["train"].image, "I_te": made["test"].image, "T_tr": made["train"].text,
             "T_te": made["test"].text, "I_labs": label, "T_labs": label})  # fmt: skip
    names = [f"thing {n}" for n in range(200)]
    write(tmp_path / "classes.txt", "\n".join(names))
    data = XMediaNet.open(DatasetOptions(tmp_path))
    assert data.classes == tuple(names)
    assert [item.label for item in data.items][:3] == [names[k] for k in made["train"].label[:3]]
    write(tmp_path / "classes.txt", "\n".join(names[:-1]))
    with pytest.raises(InputError, match="has 199 class names. Expected: 200"):
        XMediaNet.open(DatasetOptions(tmp_path))


def test_xmedia_from_its_matlab_file(tmp_path):
    made = tables(20)
    arrays = {}
    for part, table in (("tr", made["train"]), ("te", made["test"])):
        arrays |= {f"I_{part}_CNN": table.image, f"T_{part}_BOW": table.text, f"A_{part}": np.ones((3, 2)),
                   f"{part}ImgCat": table.label[:, None] + 1, f"{part}TxtCat": table.label[:, None] + 1}  # fmt: skip
    savemat(tmp_path / "XMediaFeatures.mat", arrays)
    data = XMedia.open(DatasetOptions(tmp_path))
    assert data.classes == NUMBERED[:20]
    assert np.array_equal(data.features().text[:80], made["train"].text)
    assert data.notes == ("it has 80 train, 40 test items; the published set has 4,000 train, 1,000 test",)


def raw(root, classes: int, numbered: bool) -> list[tuple[str, str, str, str]]:
    expected, rows = [], ["split,file_name,text_file,label"]
    for n in range(classes * len(PARTS)):
        label, part = n % classes, PARTS[n // classes]
        image, text = f"img/n{label:08d}_{n}.JPEG", f"txt/{n}.0.txt"
        save_picture(root / image, n)
        write(root / text, f"\ufefftext of {n}\n")
        name = f"class {label + 1}" if numbered else f"thing {label:03d}"
        rows.append(f"{part},{image},{text},{label + 1 if numbered else name}")
        expected.append((image, f"text of {n}", name, part))
    write(root / "metadata.csv", "\n".join(rows))
    return expected


@pytest.mark.parametrize("numbered", [True, False])
def test_the_raw_set_is_what_the_users_metadata_says(tmp_path, numbered):
    expected = raw(tmp_path, 20, numbered)
    data = XMedia.open(DatasetOptions(tmp_path))
    assert not data.has_features
    assert pairs(data) == expected
    assert "the published set has 4,000 train, 500 val, 500 test" in data.notes[-1]
    assert ("its classes have no names" in data.notes[0]) == numbered
    assert data.split().target == data.classes[::2]


def test_a_part_of_the_classes_is_said(tmp_path):
    raw(tmp_path, 8, numbered=False)
    assert XMedia.open(DatasetOptions(tmp_path)).notes[0] == "it has 8 classes; the published set has 20"


def test_text_files_that_lead_elsewhere_are_bad(tmp_path):
    raw(tmp_path, 20, numbered=False)
    (tmp_path / "txt/3.0.txt").unlink()
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("\ntrain,img/n00000001_1.JPEG,../../x.txt,thing 001")
    with pytest.raises(InputError) as error:
        XMedia.open(DatasetOptions(tmp_path))
    assert "2 of 101 items are bad" in str(error.value)
    assert "line 5: text_file 'txt/3.0.txt': " in str(error.value)
    assert "line 102: text_file '../../x.txt': '../../x.txt' leads outside the folder" in str(error.value)


def test_clip4cmrs_layout(tmp_path):
    expected = clip4cmr(tmp_path, NUMBERED, base=1)
    data = XMediaNet.open(DatasetOptions(tmp_path))
    assert pairs(data) == expected
    assert "its classes have no names" in data.notes[0]


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match="neither features.toml nor a dump"):
        XMediaNet.open(DatasetOptions(tmp_path))
    with pytest.raises(InputError, match="DADN's img_train_fea.txt"):
        XMediaNet.open(DatasetOptions())
