"""MLflow says what the store says, and may be down."""

import threading

import pytest
from mlflow import MlflowClient

from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tracking import Tracker

ASK = ("--methods", "clip,prototype", "--shots", "1", "--draws", "2")


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'tracking.db'}"


def runs(uri: str, kind: str) -> list:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("xshot-bench")
    return client.search_runs([experiment.experiment_id], filter_string=f"tags.kind = '{kind}'")


def test_every_cell_is_a_child_run_with_its_numbers(bench, uri, tmp_path):
    assert bench(*ASK, "--mlflow-uri", uri).code == 0
    (parent,) = runs(uri, "invocation")
    assert parent.info.status == "FINISHED"
    client = MlflowClient(tracking_uri=uri)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"suite.json", "table.json", "table.md", "table.csv", "table.tex", "tables"}
    tables = {file.path for file in client.list_artifacts(parent.info.run_id, "tables")}
    assert tables == {"tables/methods.json", "tables/significance.json"}
    store = Store(tmp_path / "results")
    records = {record.cell.digest: record for record in store.records()}
    children = runs(uri, "cell")
    assert len(children) == len(records) == 4
    for run in children:
        record = records[run.data.tags["cell"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        assert {k: run.data.metrics[k] for k in record.metrics} == record.metrics
        assert run.data.metrics["floor/i2t"] == record.floor["i2t"]
        assert run.data.params["seed"] == str(record.cell.draw)
        for tag, value in {"method": record.cell.method, "shots": "1", "split_digest": record.cell.split}.items():
            assert run.data.tags[tag] == value
        (artifact,) = client.list_artifacts(run.info.run_id, "average_precision")
        assert artifact.path.endswith(".parquet")


def test_a_repeated_run_logs_no_cell_twice_and_a_forced_one_replaces_it(bench, uri):
    bench(*ASK, "--mlflow-uri", uri)
    before = {run.info.run_id for run in runs(uri, "cell")}
    bench(*ASK, "--mlflow-uri", uri)
    assert {run.info.run_id for run in runs(uri, "cell")} == before
    assert len(runs(uri, "invocation")) == 1  # the same suite asked again is the same invocation
    bench(*ASK, "--mlflow-uri", uri, "--force")
    forced = {run.info.run_id for run in runs(uri, "cell")}
    assert len(forced) == 4 and not forced & before


def test_records_that_mlflow_does_not_have_are_logged_by_the_next_run(bench, uri):
    bench(*ASK, "--mlflow-uri", "none")
    bench(*ASK, "--mlflow-uri", uri)
    assert len(runs(uri, "cell")) == 4


def test_an_interrupted_run_does_not_wait_for_mlflow(bench, uri, tmp_path):
    bench(*ASK)
    store = Store(tmp_path / "results")
    tracker, busy = Tracker(store, uri), threading.Event()
    tracker._do(lambda: busy.wait(60) and None)
    for record in store.records():
        tracker.mirror(record)
    tracker.stop()
    busy.set()
    tracker.finish()
    assert tracker.logged == 0 and not tracker.error


def test_with_mlflow_down_results_are_kept_and_sync_logs_them_once(bench, uri, tmp_path, caplog):
    called = bench(*ASK, "--mlflow-uri", "http://127.0.0.1:9")
    assert called.code == 0
    assert "| clip" in called.out
    assert caplog.text.count("cannot be used") == 1 and "sync" in caplog.text
    results = ("sync", "--results", str(tmp_path / "results"), "--mlflow-uri")
    assert "4 of 4 records were new" in bench(*results, uri, data=False).out
    assert len(runs(uri, "cell")) == 4
    assert "0 of 4 records were new" in bench(*results, uri, data=False).out
    assert len(runs(uri, "cell")) == 4
    down = bench(*results, "http://127.0.0.1:9", data=False)
    assert down.code == 2 and "cannot be used" in down.err


def test_a_damaged_database_is_said_once_with_the_remedy(bench, tmp_path, caplog):
    database = tmp_path / "results" / "mlflow.db"
    uri, results = f"sqlite:///{database}", ("--results", str(tmp_path / "results"))
    bench(*ASK)
    database.write_text("no database")
    called = bench(*ASK, "--mlflow-uri", uri)
    assert called.code == 0 and "| clip" in called.out
    assert caplog.text.count("cannot be used") == 1
    called = bench("sync", *results, "--mlflow-uri", uri, data=False)
    assert called.code == 2 and "delete it and sync again" in called.err and len(called.err.splitlines()) == 1
    assert caplog.text.count("cannot be used") == 1


def test_children_of_a_killed_run_are_cleared_and_logged_again(bench, uri, tmp_path):
    bench(*ASK, "--mlflow-uri", uri)
    client = MlflowClient(tracking_uri=uri)
    victim = runs(uri, "cell")[0]
    client.update_run(victim.info.run_id, status="RUNNING")
    bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", uri, data=False)
    children = runs(uri, "cell")
    assert len(children) == 4 and victim.info.run_id not in {run.info.run_id for run in children}


def test_sync_without_results_is_said(bench, tmp_path):
    called = bench("sync", "--results", str(tmp_path / "nowhere"), data=False)
    assert called.code == 2 and "holds no results" in called.err
