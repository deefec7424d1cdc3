"""Pascal Sentence: UIUC's page and the unpacked form, the ways names are written, lists and the rebuilt split."""

from collections import Counter
from pathlib import Path

import pytest
from layouts import PASCAL, SPELLINGS, clip4cmr, pairs, pascal_page, pascal_unpacked, save_picture, write

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.pascal_sentence import PascalSentence


def read(root: Path, skip: bool = False) -> PascalSentence:
    return PascalSentence.open(DatasetOptions(root, skip))


@pytest.mark.parametrize("make", [pascal_unpacked, pascal_page])
def test_both_forms_are_read(tmp_path, make):
    expected = make(tmp_path)
    data = read(tmp_path)
    assert pairs(data) == expected
    assert data.classes == PASCAL
    assert Counter(data.parts.values()) == {"train": 160, "val": 20, "test": 20}
    assert "rebuilt" in data.notes[0]
    assert data.notes[1].startswith("it has 160 train, 20 val, 20 test items; the published set has 800 train, 100 val")
    assert data.split().name == "pascal_sentence-rebuilt"
    assert data.split("xshot", "last").name == "pascal_sentence-rebuilt/last"
    assert data.split().target == PASCAL[::2]
    assert {len(ids) for ids in data.split().train.values()} == {8}
    assert data.class_prompts()[10] == ["a photo of a dining table."]


def test_both_forms_have_the_same_pictures_and_texts(tmp_path):
    pascal_unpacked(tmp_path / "a")
    pascal_page(tmp_path / "b")
    a, b = read(tmp_path / "a"), read(tmp_path / "b")
    assert a.digest == b.digest
    assert a.split() == b.split()


def test_the_full_set_has_the_published_totals(tmp_path):
    pascal_unpacked(tmp_path, size=50)
    data = read(tmp_path)
    assert len(data.notes) == 1
    assert {(len(data.split().train[c]), len(data.split().test[c])) for c in PASCAL} == {(40, 5)}


@pytest.mark.parametrize(
    "name",
    [
        lambda item, _: f"{item.id} 7",
        lambda item, _: item.id.partition("/")[2] + ".jpg",
        lambda item, _: f"{SPELLINGS.get(item.label, item.label)}/{item.id.partition('/')[2]}.jpg",
        lambda _, number: str(number),
    ],
)
def test_a_users_lists_are_the_split(tmp_path, name):
    items = pascal_unpacked(tmp_path)
    lists = {"train": [], "valid": [], "test": []}
    for number, item in enumerate(items, start=1):
        lists[("test", "train", "train", "train", "valid", "")[number % 6] or "train"].append((number, item))
    for part, members in lists.items():
        write(tmp_path / "split" / f"{part}.txt", "".join(f"{name(item, number)}\n" for number, item in members))
    data = read(tmp_path)
    assert data.split().name == "pascal_sentence"
    assert not any("rebuilt" in note for note in data.notes)
    assert {i for i, part in data.parts.items() if part == "test"} == {item.id for _, item in lists["test"]}
    assert {i for i, part in data.parts.items() if part == "val"} == {item.id for _, item in lists["valid"]}


def test_lists_that_do_not_fit(tmp_path):
    items = pascal_unpacked(tmp_path)
    write(tmp_path / "train.txt", "".join(f"{i.id}\n" for i in items[1:]))
    with pytest.raises(InputError, match="lists of train only"):
        read(tmp_path)
    write(tmp_path / "test.txt", f"{items[0].id}\n{items[5].id}\nbird/2008_999999\n")
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert "test.txt line 2: 'aeroplane/2008_000005' is listed before, by train.txt line 5" in str(error.value)
    assert "test.txt line 3: 'bird/2008_999999' is no item of the set" in str(error.value)


def test_all_that_is_bad_is_said_at_once(tmp_path):
    pascal_unpacked(tmp_path)
    (tmp_path / "sentence/cat/2008_000070.txt").unlink()
    write(tmp_path / "sentence/cat/2008_000071txt", "\n \n")
    (tmp_path / "dataset/cow/2008_000090.jpg").write_bytes(b"")
    save_picture(tmp_path / "dataset/zebra/2008_000500.jpg", "zebra")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.txt"
    outside.write_text("secret")
    (tmp_path / "sentence/dog/2008_000111txt").unlink()
    (tmp_path / "sentence/dog/2008_000111.txt").symlink_to(outside)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    said = str(error.value)
    assert "5 of 201 items are bad" in said
    for words in (
        "dataset/cat/2008_000070.jpg: there is no file 'sentence/cat/2008_000070.txt'",
        "dataset/cat/2008_000071.jpg: its text is empty",
        "dataset/cow/2008_000090.jpg: 'dataset/cow/2008_000090.jpg' is not a picture",
        "dataset/dog/2008_000111.jpg: 'sentence/dog/2008_000111.txt' leads outside the folder",
        "dataset/zebra/2008_000500.jpg: its folder 'zebra' is none of the 20 classes",
    ):
        assert words in said
    assert len(read(tmp_path, skip=True).items) == 196


def test_a_page_may_name_no_picture_outside(tmp_path):
    pascal_page(tmp_path)
    save_picture(tmp_path.parent / f"{tmp_path.name}-bird/x.jpg", "outside")
    page = tmp_path / "index.html"
    row = f'<tr><td><img src="../{tmp_path.name}-bird/x.jpg"></td><td><table><tr><td>a</td></tr></table></td></tr>'
    page.write_text(page.read_text().replace("</table></body>", row + "</table></body>"))
    with pytest.raises(InputError, match="index.html picture 201: .*"):
        read(tmp_path)


def test_an_empty_folder_is_one_message(tmp_path):
    with pytest.raises(InputError, match="0 HTML pages with pictures and no dataset/"):
        read(tmp_path)
    (tmp_path / "dataset").mkdir()
    with pytest.raises(InputError, match="no pictures in dataset/<class>/"):
        read(tmp_path)


def test_clip4cmrs_layout_has_labels_from_one(tmp_path):
    expected = clip4cmr(tmp_path, PASCAL, base=1)
    assert pairs(read(tmp_path)) == expected
