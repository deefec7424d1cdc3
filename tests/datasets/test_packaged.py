"""Tux Paint's stamps and Open Clip Art: small trees as Debian lays them out, and the packages where they are."""

from pathlib import Path

import pytest
from layouts import save_picture, write

from xshot_bench import InputError
from xshot_bench.datasets._words import joined, says_something, stems, without
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.openclipart import CLIP_ART, OpenClipArt
from xshot_bench.datasets.tuxpaint import STAMPS, TuxPaint

RDF = """<?xml version="1.0"?><svg><metadata><rdf:RDF><cc:Work><dc:title>{title}</dc:title><dc:subject><rdf:Bag>
{keywords}</rdf:Bag></dc:subject><dc:creator><dc:title>Somebody</dc:title></dc:creator></cc:Work></rdf:RDF></metadata>
</svg>"""


def test_words_that_hold_the_class_name_are_taken_out():
    assert stems("animals/fish_and_birds") == ["animal", "fish", "and", "bird"]
    assert without("A clownfish, two Birds and a cat!", ["fish", "bird"]) == "A two and a cat!"
    assert joined(["Red cat", "cat", "red", "cat, small", ""]) == "Red cat, cat, small"
    assert [says_something(text) for text in ("A the", "11", "", "A cat", "!")] == [False, False, False, True, False]


def stamps(root: Path) -> None:
    """Ten birds and ten trees with their traps, nine cars, and pictures without a description or with a bad one."""
    for n in range(10):
        for folder, text in (("animals/birds", f"A small bird {n}a."), ("plants/trees/old", f"An oak {n}b.")):
            save_picture(root / folder / f"s{n}.png", f"{folder} {n}")
            write(root / folder / f"s{n}.txt", f"{text}\nde.utf8=Ein Vogel.\n")
        if n:
            save_picture(root / "vehicles" / f"car{n}.png", f"car {n}")
            write(root / "vehicles" / f"car{n}.txt", f"A car {n}c.\n")
    save_picture(root / "animals/birds/blackbird.png", "blackbird")
    write(root / "animals/birds/blackbird.txt", "A blackbird.\n")
    save_picture(root / "animals/birds/mute.png", "mute")
    save_picture(root / "animals/birds/empty.png", "empty")
    write(root / "animals/birds/empty.txt", "")
    write(root / "animals/birds/owl.txt", "An owl without a picture.\n")


def test_stamps_are_read_with_their_first_line(tmp_path):
    stamps(tmp_path)
    data = TuxPaint.open(DatasetOptions(tmp_path))
    assert data.classes == ("animals/birds", "plants/trees")
    assert [(i.id, i.text, i.label) for i in data.items[:10]] == [
        (f"animals/birds/s{n}.png", f"A small {n}a.", "animals/birds") for n in range(10)
    ]
    assert (data.items[-1].id, data.items[-1].label) == ("plants/trees/old/s9.png", "plants/trees")
    assert len(data.items) == 20
    assert data.notes == (
        "2 items say nothing without their class name and are left out",
        "9 items are in folders with fewer than 10 and are left out",
    )
    assert data.class_prompts() == [["a photo of a birds."], ["a photo of a trees."]]
    assert data.picture(0).size == (12, 9)
    digest = data.digest
    save_picture(tmp_path / "animals/birds/s0.png", "another")
    assert TuxPaint.open(DatasetOptions(tmp_path)).digest != digest


def clip_art(root: Path) -> None:
    for n in range(10):
        for folder in ("food/fruit", "shapes/stars", "unsorted", "people"):
            save_picture(root / "png" / folder / f"p{n}.png", f"{folder} {n}")
            words = ("fruit", f"kind {n}", "Foods", "apple &amp; pear", "HASH(0x8a0b6a8)", "")
            keywords = "".join(f"<rdf:li>{word}</rdf:li>\n" for word in words)
            text = (
                "<svg/>" if folder == "people" and n == 3 else RDF.format(title=f"Apple fruit {n}", keywords=keywords)
            )
            write(root / "svg" / folder / f"p{n}.svg", text)
    (root / "png/people/link.png").symlink_to(root / "png/people/p1.png")
    write(root / "svg/people/link.svg", RDF.format(title="linked", keywords=""))
    save_picture(root / "png/people/alone.png", "alone")


def test_clip_art_is_read_with_title_and_keywords(tmp_path):
    clip_art(tmp_path)
    data = OpenClipArt.open(DatasetOptions(tmp_path))
    assert data.classes == ("food/fruit",)
    assert [i.text for i in data.items] == [f"Apple {n}, kind {n}, apple & pear" for n in range(10)]
    assert "no zero-shot scores" in data.notes[0]
    assert data.notes[1] == "9 items are in folders with fewer than 10 and are left out"


PACKAGES = [(TuxPaint, "tuxpaint-stamps-default"), (OpenClipArt, "openclipart-png openclipart-svg")]


@pytest.mark.parametrize(("cls", "packages"), PACKAGES)
def test_a_missing_package_is_named(cls, packages, tmp_path, monkeypatch):
    module = cls.__module__
    for name in ("STAMPS", "CLIP_ART"):
        monkeypatch.setattr(f"{module}.{name}", tmp_path / "no", raising=False)
    with pytest.raises(InputError, match=f"apt-get install {packages}"):
        cls.open(DatasetOptions())
    with pytest.raises(InputError, match="no folder with at least 10"):
        cls.open(DatasetOptions(tmp_path))


@pytest.mark.skipif(not STAMPS.is_dir(), reason="needs Debian's tuxpaint-stamps-default")
def test_the_stamps_of_the_package():
    data = TuxPaint.open(DatasetOptions())
    assert len(data.classes) >= 20
    assert len(data.items) > 550
    assert not any("bird" in i.text.lower() for i in data.items if i.label == "animals/birds")
    assert data.split().target == data.classes[::2]


@pytest.mark.skipif(not (CLIP_ART / "svg").is_dir(), reason="needs Debian's openclipart-png and openclipart-svg")
def test_the_drawings_of_the_packages():
    data = OpenClipArt.open(DatasetOptions())
    assert len(data.classes) > 50
    assert len(data.items) > 2500
    for item in data.items:
        assert not any(part in item.text.lower() for part in stems(item.label) if part != "and"), item
