"""NUS-WIDE and NUS-WIDE-10k: row-aligned files, backslashes, missing tags, id lists and the rebuilt set."""

from collections import Counter

import pytest
from layouts import clip4cmr, nus_wide, pairs, write

from xshot_bench import InputError
from xshot_bench.datasets import nus_wide_10k
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.nus_wide import CLASSES, NusWide
from xshot_bench.datasets.nus_wide_10k import CLASSES as TEN
from xshot_bench.datasets.nus_wide_10k import NusWide10k


@pytest.fixture
def small(monkeypatch):
    """A set of ten of each concept instead of a thousand."""
    monkeypatch.setattr(nus_wide_10k, "SIZES", {"train": 8, "val": 1, "test": 1})


@pytest.mark.parametrize(
    ("base", "labels", "flat"),
    [("NUS-WIDE", "AllLabels", False), ("NUS_WIDE", "AllLabels81", True), ("", "AllLabels", False)],
)
def test_the_released_layout_is_read(tmp_path, base, labels, flat):
    expected = nus_wide(tmp_path, CLASSES, base=base, labels=labels, flat=flat)
    data = NusWide.open(DatasetOptions(tmp_path))
    assert sorted(pairs(data)) == sorted(expected)
    assert [item.id for item in data.items] == [pair.id for pair in expected]
    assert data.classes == CLASSES
    assert data.notes[0] == "15 photos of one concept have no tags and are left out"
    assert "the published set has 42,941 train, 28,661 test" in data.notes[1]
    assert data.split().target == ("animal", "clouds", "lake", "plants", "water")


def test_files_that_are_not_aligned_are_refused(tmp_path):
    nus_wide(tmp_path, CLASSES)
    top = tmp_path / "NUS-WIDE"
    labels, tags = top / "Groundtruth/AllLabels/Labels_lake.txt", top / "NUS_WID_Tags/All_Tags.txt"
    kept, all_tags = labels.read_text(), tags.read_bytes()
    labels.write_text(kept + "0\n")
    with pytest.raises(InputError, match="has 91 labels for 90 pictures"):
        NusWide.open(DatasetOptions(tmp_path))
    labels.write_text(kept.replace("0", "2", 1))
    with pytest.raises(InputError, match="other values than 0 and 1: '2'"):
        NusWide.open(DatasetOptions(tmp_path))
    labels.unlink()
    with pytest.raises(InputError, match="no Groundtruth/AllLabels/Labels_lake.txt"):
        NusWide.open(DatasetOptions(tmp_path))
    labels.write_text(kept)
    first, second, rest = all_tags.split(b"\n", 2)
    tags.write_bytes(b"\n".join([second, first, rest]))
    with pytest.raises(InputError, match="All_Tags.txt line 1 is of photo"):
        NusWide.open(DatasetOptions(tmp_path))
    tags.write_bytes(b"\n".join([first, rest]))
    with pytest.raises(InputError, match="All_Tags.txt has 89 lines and Imagelist.txt 90"):
        NusWide.open(DatasetOptions(tmp_path))
    with pytest.raises(InputError, match="no ImageList/Imagelist.txt"):
        NusWide.open(DatasetOptions(tmp_path / "NUS-WIDE/Flickr"))


def test_missing_pictures_are_said_or_left_out(tmp_path):
    expected = nus_wide(tmp_path, CLASSES)
    (gone,) = (tmp_path / "NUS-WIDE/Flickr/lake").glob(f"*_{expected[4].id}.jpg")
    gone.unlink()
    with pytest.raises(InputError, match="there is no file 'NUS-WIDE/Flickr/lake/"):
        NusWide.open(DatasetOptions(tmp_path))
    data = NusWide.open(DatasetOptions(tmp_path, skip_bad_items=True))
    assert [item.id for item in data.items] == [pair.id for pair in expected if pair != expected[4]]


def test_ten_thousand_are_rebuilt_always_alike_and_said_to_be(tmp_path, small):
    expected = {pair.id: pair for pair in nus_wide(tmp_path, TEN, size=12)}
    data = NusWide10k.open(DatasetOptions(tmp_path))
    assert Counter((data.parts[i.id], i.label) for i in data.items) == {
        (part, c): size for c in TEN for part, size in (("train", 8), ("val", 1), ("test", 1))
    }
    assert all((i.text, i.label) == expected[i.id][1:3] for i in data.items)
    assert "rebuilt" in data.notes[0]
    assert "the published set has 8,000 train, 1,000 val, 1,000 test" in data.notes[1]
    assert data.split("kshot").name == "nus_wide_10k-rebuilt"
    assert NusWide10k.open(DatasetOptions(tmp_path)).digest == data.digest
    assert data.classes[:3] == ("clouds", "animal", "flowers")


def test_ten_thousand_need_a_thousand_of_each(tmp_path):
    nus_wide(tmp_path, TEN, size=3)
    with pytest.raises(InputError, match="too few have: clouds \\(3\\), animal"):
        NusWide10k.open(DatasetOptions(tmp_path))


@pytest.mark.parametrize("form", ["id", "path", "file"])
def test_a_users_lists_choose_the_photos(tmp_path, form):
    expected = nus_wide(tmp_path, TEN, size=6)
    paths = {p.stem.partition("_")[2]: p for p in (tmp_path / "NUS-WIDE/Flickr").rglob("*.jpg")}
    chosen = [pair for n, pair in enumerate(expected) if n % 6 < 5]
    for k, part in enumerate(("test", "train", "train")):
        names = [
            {"id": pair.id, "path": f"{pair.label}\\{paths[pair.id].name}", "file": paths[pair.id].name}[form]
            for pair in chosen[k::3]
        ]
        with (tmp_path / f"{part}.txt").open("a") as file:
            file.write("".join(f"{name} {n}\n" for n, name in enumerate(names)))
    data = NusWide10k.open(DatasetOptions(tmp_path))
    assert {i.id for i in data.items} == {pair.id for pair in chosen}
    assert {i for i, part in data.parts.items() if part == "test"} == {pair.id for pair in chosen[::3]}
    assert data.split().name == "nus_wide_10k"
    assert len(data.notes) == 1


def test_clip4cmrs_layout(tmp_path):
    expected = clip4cmr(tmp_path, TEN, base=0)
    assert pairs(NusWide10k.open(DatasetOptions(tmp_path))) == expected


def test_no_layout_at_all(tmp_path):
    write(tmp_path / "readme", "nothing")
    with pytest.raises(InputError, match="Expected: ImageList/"):
        NusWide10k.open(DatasetOptions(tmp_path))
