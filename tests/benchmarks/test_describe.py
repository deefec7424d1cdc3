"""What is said of a dataset: counts, texts, and floors against the table that was computed apart from this code."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xshot_bench import InputError
from xshot_bench.benchmarks.describe import describe
from xshot_bench.benchmarks.metrics import average_precision
from xshot_bench.benchmarks.report.description import contact_sheet, markdown
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.manifest import Manifest
from xshot_bench.datasets.pascal_sentence import PascalSentence
from xshot_bench.datasets.wikipedia import Wikipedia
from xshot_bench.run_bench import call

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("datasets", "plugins")]
from colours import ColourEncoder
from layouts import pascal_unpacked

REAL = Path(__file__).resolve().parents[3] / "shared/data/wikipedia"


class Letters(ColourEncoder):
    """Every letter is a token, and ten are read."""

    context = 10

    def text_lengths(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


@pytest.fixture
def colours(colour_folder) -> Manifest:
    return Manifest.open(DatasetOptions(colour_folder))


def floors(found) -> dict[tuple[str, str, str], float]:
    return {(f.protocol, f.split, f.gallery): f.i2t for f in found.floors}


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/wikipedia")
def test_wikipedias_floors_are_those_of_the_table():
    """Computed in another way for the reference pages; there the gallery of training items has the support in it."""
    found = describe(Wikipedia.open(DatasetOptions(REAL)), ColourEncoder(), "colours")
    of = floors(found)
    assert of["xshot", "wikipedia", "test"] == pytest.approx(0.234, abs=5e-4)
    assert of["xshot", "wikipedia/odd", "test"] == pytest.approx(0.230, abs=5e-4)
    assert of["kshot", "wikipedia", "test"] == pytest.approx(0.118, abs=5e-4)
    assert of["xshot", "wikipedia", "train"] == pytest.approx(0.217, abs=2e-3)
    assert of["xshot", "wikipedia/odd", "train"] == pytest.approx(0.222, abs=2e-3)
    assert (found.image, found.text, found.texts) == (128, 10, None)
    assert found.classes["warfare"] == {"train": 347, "test": 104}
    sizes = {(f.split, f.gallery): (f.queries, f.searched) for f in found.floors if f.protocol == "xshot"}
    assert sizes["wikipedia", "test"] == (317, 317)
    assert sizes["wikipedia", "train"] == (317, 984 - 5 * 7)
    assert sizes["wikipedia", "all"] == (317, 693)


def test_pascals_floors_are_those_of_the_table(tmp_path):
    pascal_unpacked(tmp_path, size=50)
    of = floors(describe(PascalSentence.open(DatasetOptions(tmp_path)), ColourEncoder(), "colours"))
    assert of["xshot", "pascal_sentence-rebuilt", "test"] == pytest.approx(0.164, abs=5e-4)
    assert of["xshot", "pascal_sentence-rebuilt", "train"] == pytest.approx(0.113, abs=3e-3)
    assert of["kshot", "pascal_sentence-rebuilt", "test"] == pytest.approx(0.090, abs=5e-4)


def test_floors_are_what_random_scores_get(colours):
    found = describe(colours, ColourEncoder(), "colours")
    roles = colours.split().roles(0, 0, "all")
    labels = colours.labels
    query, gallery = (np.array([labels[i] for i in ids]) for ids in (roles.image_queries, roles.text_gallery))
    rng = np.random.default_rng(0)
    means = [average_precision(rng.random((len(query), len(gallery))), query, gallery).mean() for _ in range(300)]
    expected = floors(found)["xshot", "manifest", "all"]
    assert np.mean(means) == pytest.approx(expected, abs=4 * np.std(means) / 300**0.5)
    assert {f.accuracy for f in found.floors if f.split == "manifest" and f.gallery == "test"} == {1 / 4, 1 / 8}


def test_texts_are_counted_in_the_encoders_tokens(colours):
    found = describe(colours, Letters(), "letters")
    lengths = [len(item.text) for item in colours.items]
    assert found.texts is not None
    assert (found.texts.least, found.texts.most) == (min(lengths), max(lengths))
    assert found.texts.median == np.median(lengths)
    assert found.texts.cut == sum(length > 10 for length in lengths) > 0
    assert found.texts.distinct == len({item.text for item in colours.items})
    assert found.texts.naming == 0
    said = markdown(found)
    assert f"{found.texts.cut} are cut at its context of 10" in said
    assert "it cuts none" in markdown(describe(colours, ColourEncoder(), "colours"))


def test_every_class_and_part_is_counted(colours):
    found = describe(colours, ColourEncoder(), "colours")
    assert found.classes == {c: {"": 12} for c in colours.classes}
    lines = markdown(found).splitlines()
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["class-black", "12"]
    assert any(line.replace(" ", "") == "|all|96|" for line in lines)


def test_a_split_that_cannot_be_made_says_why(colours):
    few = [i for i in range(len(colours.items)) if colours.items[i].label in colours.classes[:5]]
    colours.items, colours.classes = tuple(colours.items[i] for i in few), colours.classes[:5]
    found = describe(colours, ColourEncoder(), "colours")
    problems = {f.split: f.problem for f in found.floors if f.protocol == "xshot"}
    assert "at least 6 classes" in problems["manifest/b"]
    assert "- xshot manifest/b cannot be made: a class-disjoint split needs at least 6 classes" in markdown(found)
    assert floors(found)["kshot", "manifest", "test"] > 0
    assert next(f for f in found.to_dict()["floors"] if f["problem"])["i2t"] is None


def test_the_contact_sheet_shows_pictures_of_every_class(colours, tmp_path):
    path = tmp_path / "sheet.png"
    assert contact_sheet(colours, path) == 48
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"), float)
    assert pixels.shape == (6 * 250 + 10, 8 * 170 + 10, 3)
    first = [pixels[10 + 80 : 10 + 84, 10 + 170 * n + 78 : 10 + 170 * n + 82].mean((0, 1)) for n in range(8)]
    dominant = dict(zip(colours.classes, first, strict=True))
    assert dominant["class-red"][0] > 1.5 * dominant["class-red"][1]
    assert dominant["class-blue"][2] > 1.5 * dominant["class-blue"][0]
    assert dominant["class-white"].min() > dominant["class-black"].max()
    again = tmp_path / "again.png"
    contact_sheet(colours, again)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="cannot be written"):
        contact_sheet(colours, tmp_path / "no" / "sheet.png")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/wikipedia")
def test_features_have_no_contact_sheet(tmp_path):
    with pytest.raises(InputError, match="features and no pictures"):
        contact_sheet(Wikipedia.open(DatasetOptions(REAL)), tmp_path / "sheet.png")


def test_the_command(colour_folder, tmp_path, capsys):
    plugin = Path(__file__).resolve().parents[1] / "plugins/colours.py"
    given = ["describe", "manifest", "--root", str(colour_folder), "--encoder", "colours", "--plugin", str(plugin)]
    given += ["--cache", str(tmp_path / "cache")]
    assert call([*given, "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "manifest: 96 items in 8 classes" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").is_file()
    assert call([*given, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["items"] == 96
    assert content["floors"][0]["split"] == "manifest"
    assert call(["describe", "manifets"]) == 2
    assert "manifest" in capsys.readouterr().err


def test_a_label_cannot_command_the_terminal(colour_folder, tmp_path):
    rows = (colour_folder / "metadata.csv").read_text().replace("class-red", "class\x1b]0;owned\x07-\u202ered")
    shutil.copytree(colour_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metadata.csv").write_text(rows)
    told = markdown(describe(Manifest.open(DatasetOptions(tmp_path)), ColourEncoder(), "colours"))
    assert "class ]0;owned - red" in told
    assert all(char.isprintable() or char == "\n" for char in told)
