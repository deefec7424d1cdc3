"""compare A B: folders, git revisions, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from xshot_bench.benchmarks.provenance import provenance
from xshot_bench.benchmarks.records import Cell, Record, Result, to_parquet
from xshot_bench.benchmarks.significance import two_way
from xshot_bench.benchmarks.store import Store
from xshot_bench.run_bench import call

SOME = Cell(
    method="clip", parameters={}, code="c", dataset="d", encoder="e", features="f", split="s", gallery="test", shots=1,
    draw=0, protocol="xshot/1",
)  # fmt: skip
QUERIES = [f"q{i:02}" for i in range(40)]


def put(store: Store, ap: np.ndarray, finished: str = "2026-01-01T00:00:00+00:00", **cell: object) -> None:
    """Records of one method: ``ap [S,Q]``, the same in both directions."""
    for draw, row in enumerate(ap):
        frame = pd.DataFrame({"query": QUERIES, "i2t": row, "t2i": row})
        record = Record(
            cell=SOME.model_copy(update={**cell, "draw": draw}),
            status="done",
            provenance=provenance("cpu").model_copy(update={"finished": finished}),
        )
        store.add(Result(record, to_parquet(frame)))


def fail(store: Store, draw: int, **cell: object) -> None:
    record = Record(
        cell=SOME.model_copy(update={**cell, "draw": draw}),
        status="failed",
        reason="Boom: no",
        provenance=provenance("cpu"),
    )
    store.add(Result(record, traceback="…"))


@pytest.fixture
def stores(tmp_path):
    found = [Store(tmp_path / name) for name in "ab"]
    for store in found:
        store.cells.mkdir(parents=True)
    return found


@pytest.fixture
def compared(tmp_path, capfd):
    def run(*more: str, a: str | None = None, b: str | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        code = call(["compare", a or str(tmp_path / "a"), b or str(tmp_path / "b"), *more])
        return (code, *capfd.readouterr())

    return run


def ap(shift: float = 0.0, draws: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.random.default_rng(99).random(40) / 2 + shift + 0.02 * rng.random((draws, 40))


def test_better_worse_same_and_identical(stores, compared):
    a, b = stores
    base = ap()
    for name, change in {"up": 0.1, "down": -0.1, "alike": 0.0005, "kept": None}.items():
        put(a, base, method=name)
        put(b, base if change is None else ap(change, seed=1), method=name, code="new" if change else "c")
    code, out, _ = compared("--format", "json")
    found = {change["key"]["method"]: change for change in json.loads(out)}
    assert code == 0
    assert {name: c["verdict"] for name, c in found.items()} == {
        "up": "better", "down": "worse", "alike": "same", "kept": "identical"
    }  # fmt: skip
    raw = {n: two_way(ap(s, seed=1) - base) for n, s in {"alike": 0.0005, "down": -0.1, "up": 0.1}.items()}
    corrected = dict(zip(raw, multipletests([e.p for e in raw.values()], method="holm")[1], strict=True))
    for name, estimate in raw.items():
        assert found[name]["difference"]["estimate"]["mean"] == pytest.approx(estimate.mean)
        assert found[name]["difference"]["p_corrected"] == pytest.approx(corrected[name])
        assert found[name]["changed"] == ["code"]
    assert found["kept"]["changed"] == []
    shown = compared("--format", "rich")[1]
    assert "1 better" in shown and "1 identical" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_only_complete_pairs_are_compared_and_it_says_how_many(stores, compared):
    a, b = stores
    put(a, ap(draws=5), method="m")
    put(b, ap(0.1, draws=3, seed=1), method="m")
    shuffled = b.record(SOME.model_copy(update={"method": "m", "draw": 1}).digest)
    frame = b.average_precision(shuffled).sample(frac=1, random_state=0)  # queries are paired by their ids
    b.add(Result(shuffled, to_parquet(frame)))
    fail(b, 3, method="m")
    put(a, ap(), method="gone")
    code, out, _ = compared("--format", "json")
    gone, m = json.loads(out)
    assert code == 1  # a cell failed
    assert (gone["verdict"], gone["b"]) == ("only in A", None) and gone["a"] == pytest.approx(ap().mean())
    expected = two_way(ap(0.1, draws=3, seed=1) - ap(draws=5)[:3])
    assert m["verdict"] == "better"
    assert m["difference"]["estimate"]["draws"] == 3
    assert m["difference"]["estimate"]["mean"] == pytest.approx(expected.mean)
    assert "failed: Boom: no" in m["note"] and "3 draws in both, of 5 and 3" in m["note"]


def test_of_several_configurations_the_last_is_compared(stores, compared):
    a, b = stores
    put(a, ap(), method="m")
    put(b, ap(), "2026-01-02T00:00:00+00:00", method="m", parameters={"steps": 2})
    put(b, ap(0.2, draws=2, seed=3), "2026-01-01T00:00:00+00:00", method="m", parameters={"steps": 1})
    (m,) = json.loads(compared("--format", "json")[1])
    assert (m["verdict"], m["changed"]) == ("identical", ["parameters"])
    assert m["note"] == "B: 1 older configurations left out"


def test_all_shots_come_after_numbers(stores, compared):
    for store in stores:
        for shots in ("all", 16, 2):
            put(store, ap(draws=2), method="m", shots=shots)
    assert [change["key"]["shots"] for change in json.loads(compared("--format", "json")[1])] == [2, 16, "all"]


def test_other_rules_are_not_compared(stores, compared):
    a, b = stores
    put(a, ap(), method="m", gallery="test")
    put(b, ap(), method="m", gallery="all")
    found = json.loads(compared("--format", "json")[1])
    assert sorted(change["verdict"] for change in found) == ["only in A", "only in B"]
    assert all("another encoder, gallery or split" in change["note"] for change in found)


def test_all_failed_is_not_compared(stores, compared):
    a, b = stores
    put(a, ap(draws=2), method="m")
    fail(b, 0, method="m")
    code, out, _ = compared("--format", "json")
    assert code == 1 and json.loads(out)[0]["verdict"] == "not compared"


def test_one_draw_is_tested_over_its_queries_and_says_so(stores, compared):
    a, b = stores
    put(a, ap(draws=1), method="m")
    put(b, ap(0.1, draws=1, seed=1), method="m")
    assert json.loads(compared("--format", "json")[1])[0]["verdict"] == "better"
    assert "it says nothing about other draws" in compared()[1]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def test_git_revisions(stores, compared, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    (repository / "deep").mkdir(parents=True)
    git(repository, "init", "-q", "-b", "trunk")
    for number, shift in enumerate((0.0, 0.1)):
        for folder in ("results/reference", "other/place"):
            shutil.rmtree(repository / folder, ignore_errors=True)
            store = Store(repository / folder)
            store.cells.mkdir(parents=True)
            put(store, ap(shift, seed=number), method="m")
        git(repository, "add", "-A")
        git(repository, "commit", "-qm", f"results {number}")
    monkeypatch.chdir(repository / "deep")  # from anywhere inside
    for a, b, verdict in (
        ("trunk~1", "trunk", "better"),
        ("trunk", "HEAD~1", "worse"),
        ("trunk:other/place", "trunk", "identical"),
        ("trunk~1", str(repository / "results/reference"), "better"),
    ):
        code, out, err = compared("--format", "json", a=a, b=b)
        assert code == 0, err
        assert [change["verdict"] for change in json.loads(out)] == [verdict]
    assert git(repository, "status", "--porcelain") == ""
    for a, message in (
        ("trunk:nowhere", "has no 'nowhere'"),
        ("trunk:other", "holds no results"),
        ("nobranch", "neither a results folder nor a revision"),
        ("trunk:../..", "has no"),
        (str(tmp_path), "holds no results"),
    ):
        code, _, err = compared(a=a)
        assert code == 2 and message in err and "Traceback" not in err


def test_outside_a_repository(stores, compared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, _, err = compared(a="main")
    assert code == 2 and "Expected: a folder, REVISION" in err
