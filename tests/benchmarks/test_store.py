"""A record is whole or not there; what is damaged is noticed; what cannot be written is said."""

import errno
import io
import logging
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from xshot_bench import InputError
from xshot_bench.benchmarks.provenance import provenance
from xshot_bench.benchmarks.records import Cell, Record, Result, to_parquet
from xshot_bench.benchmarks.store import Store, write_atomically


def make_result(draw: int = 0, status: str = "done", value: float = 0.25) -> Result:
    cell = Cell(
        method="clip",
        parameters={},
        code="c",
        dataset="d",
        encoder="e",
        features="f",
        split="s",
        gallery="test",
        protocol="xshot/1",
        shots=1,
        draw=draw,
    )
    record = Record(cell=cell, status=status, metrics={"mAP": value}, provenance=provenance("cpu"))
    ap = pd.DataFrame({"query": ["a", "b"], "i2t": [value, value], "t2i": [0.5, float("nan")]})
    return Result(record, to_parquet(ap) if status == "done" else b"", "Traceback ..." if status == "failed" else "")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_what_is_written_is_read_back(store):
    result = make_result()
    with store.writing():
        stored = store.add(result)
    read = store.record(result.record.cell.digest)
    assert read == stored
    pd.testing.assert_frame_equal(store.average_precision(read), pd.read_parquet(io.BytesIO(result.ap)))


def test_a_failure_keeps_its_traceback_until_the_cell_is_done(store):
    failed, done = make_result(status="failed"), make_result()
    trace = store.cells / f"{failed.record.cell.digest}.traceback.txt"
    with store.writing():
        store.add(failed)
        assert trace.read_text() == "Traceback ..."
        store.add(done)
    assert not trace.exists()
    assert store.record(done.record.cell.digest).status == "done"


def test_running_again_replaces_the_record_and_its_table(store):
    with store.writing():
        store.add(make_result(value=0.25))
        store.add(make_result(value=0.75))
    (record,) = store.records()
    assert record.metrics["mAP"] == 0.75
    assert store.average_precision(record)["i2t"].tolist() == [0.75, 0.75]
    assert len(list(store.cells.glob("*.parquet"))) == 1


@pytest.mark.parametrize("damage", ["cut", "garbage", "parquet cut", "parquet gone", "other cell", "unknown field"])
def test_a_damaged_record_is_noticed_set_aside_and_counts_as_new(store, caplog, damage):
    with store.writing():
        record = store.add(make_result())
        path = store.cells / f"{record.cell.digest}.json"
        table = store.cells / record.ap_file
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:100])
        elif damage == "garbage":
            path.write_bytes(b"\xff\x00" * 50)
        elif damage == "parquet cut":
            table.write_bytes(table.read_bytes()[:-9])
        elif damage == "parquet gone":
            table.unlink()
        elif damage == "other cell":
            path.write_text(path.read_text().replace('"shots": 1', '"shots": 2'))
        else:
            path.write_text(path.read_text().replace('"status"', '"state"'))
        with caplog.at_level(logging.WARNING):
            assert store.record(record.cell.digest) is None
        assert "is damaged" in caplog.text
        assert path.with_suffix(".json.damaged").exists()
        store.add(make_result())
        assert store.record(record.cell.digest) is not None


def test_the_copy_of_a_split_is_kept_and_mended(store):
    copy = store.folder / "splits" / "abc.json"
    for damage in ("", "{", None):
        with store.writing():
            store.add_split("abc", "the split")
        assert copy.read_text() == "the split"
        copy.unlink() if damage is None else copy.write_text(damage)


def test_two_runs_cannot_write_to_one_folder(store):
    with store.writing(), pytest.raises(InputError, match="another run is writing"), Store(store.folder).writing():
        pass


def test_an_unusable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written to .*--results"), Store(tmp_path / "file").writing():
        pass


@pytest.mark.parametrize("mode", [0o500, 0])
def test_a_read_only_folder_is_said(tmp_path, mode):
    """In a process of its own, as nothing is read-only to root."""
    tmp_path.chmod(mode)
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            with Store(tmp_path / "results").writing():
                os._exit(1)
        except InputError as error:
            os._exit(0 if "cannot be written to (Permission denied). Change its permissions" in str(error) else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    tmp_path.chmod(0o700)


def test_a_full_disk_is_said_and_keeps_what_was_there(store, monkeypatch):
    with store.writing():
        store.add(make_result(draw=0))

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="full disk"):
            store.add(make_result(draw=1))
    monkeypatch.undo()
    assert [record.cell.draw for record in store.records()] == [0]
    assert not [path for path in store.cells.iterdir() if path.name.startswith(".")]


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def broken(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_known_by_an_id_of_its_own_that_moves_with_it(store, tmp_path):
    with store.writing(), Store(tmp_path / "other").writing():
        known = store.identity()
        assert known == store.identity() != Store(tmp_path / "other").identity()
    store.folder.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved").identity() == known
    (tmp_path / "moved/id").write_bytes(b"\xff" * 16)
    assert Store(tmp_path / "moved").identity() != known


def test_what_a_killed_write_left_is_removed_by_the_next_run_and_nothing_else(store):
    with store.writing():
        store.add(make_result())
    kept = {path for path in store.folder.rglob("*") if path.is_file()} | {store.cells / ".DS_Store"}
    (store.cells / ".DS_Store").touch()
    table = store.folder / "invocations" / "abc" / "tables" / "methods.json"
    for path in (store.cells / ("0" * 64 + ".json"), store.folder / "splits" / "abc.json", table):
        path.parent.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            write_atomically(path, b"half")
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len([path for path in store.folder.rglob("*") if path.is_file()]) == len(kept) + 3
    with store.writing():
        assert {path for path in store.folder.rglob("*") if path.is_file()} == kept


def test_the_digest_depends_on_what_matters_and_on_nothing_else():
    cell = make_result().record.cell
    assert cell.model_copy(update={"encoder": "other name"}).digest == cell.digest
    assert cell.model_copy(update={"method": "clip:alias"}).digest == cell.digest
    for change in ({"draw": 1}, {"shots": 2}, {"code": "x"}, {"features": "x"}, {"split": "x"}, {"gallery": "all"},
                   {"parameters": {"a": 1}}, {"method": "other"}, {"protocol": "x"}):  # fmt: skip
        assert cell.model_copy(update=change).digest != cell.digest


def test_numbers_that_are_not_finite_are_read_back(store):
    result = make_result()
    result.record.diagnostics = {"kl": float("nan"), "loss": float("inf")}
    with store.writing():
        store.add(result)
    diagnostics = store.records()[0].diagnostics
    assert diagnostics["kl"] != diagnostics["kl"] and diagnostics["loss"] == float("inf")
