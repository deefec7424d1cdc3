"""From a folder in the official layout to a table, under every protocol and gallery."""

import numpy as np
import pytest
from conftest import COLOURS
from layouts import pascal_unpacked, tables, wikipedia

ASK = ("--methods", "random,clip", "--draws", "1", "--format", "json", "--encoder", "colours", "--plugin", str(COLOURS))
RULES = [("xshot", "test", "1"), ("xshot", "train", "1"), ("xshot", "all", "0"), ("kshot", "test", "1,all")]


@pytest.mark.parametrize(("protocol", "gallery", "shots"), RULES)
def test_wikipedia_with_pictures(bench, tmp_path, protocol, gallery, shots):
    wikipedia(tmp_path / "data", train=9)
    called = bench(*ASK, "--datasets", "wikipedia", "--root", str(tmp_path / "data"), "--protocol", protocol,
                   "--gallery", gallery, "--shots", shots, data=False)  # fmt: skip
    assert called.code == 0, called.err
    assert "the published set has 2,173 train, 693 test" in called.err
    rows = [row for row in called.table["rows"] if row["method"] == "clip"]
    assert len(rows) == len(shots.split(","))
    assert all(0 < row["mean"]["mean"] < 1 for row in rows)
    assert {row["shots"] for row in rows} == {int(x) if x.isdigit() else x for x in shots.split(",")}


def test_a_rebuilt_split_is_said_where_the_split_is(bench, tmp_path):
    pascal_unpacked(tmp_path / "data", size=20)
    called = bench(*ASK, "--datasets", "pascal_sentence", "--root", str(tmp_path / "data"), "--shots", "0", data=False)
    assert called.code == 0, called.err
    assert "rebuilt" in called.err
    (split,) = (tmp_path / "results/splits").iterdir()
    assert '"name": "pascal_sentence-rebuilt"' in split.read_text()


def test_published_features_run_and_decline_what_they_cannot(bench, tmp_path):
    made = tables(8, train=6, test=3)
    arrays = {f"{kind}_{part}": array for part, table in made.items() for kind, array in table._asdict().items()}
    np.savez(tmp_path / "dump.npz", **arrays)
    called = bench(*ASK, "--datasets", "features", "--root", str(tmp_path / "dump.npz"), "--shots", "0", data=False)
    assert called.code == 0, called.err
    rows = {row["method"]: row for row in called.table["rows"]}
    assert 0 < rows["random"]["mean"]["mean"] < 1
    assert rows["clip"]["mean"] is None
    assert "separate spaces" in str(rows["clip"])
