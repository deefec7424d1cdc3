"""MLflow says what the store says, and may be down."""

import os
import shutil
import signal
import threading
from itertools import islice

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow_world import everything, runs
from sqlalchemy import Table, event

from xshot_bench.benchmarks import publish
from xshot_bench.benchmarks.report.figures_set import figure_files
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tracking import Tracker

ASK = ("--methods", "clip,prototype", "--shots", "1", "--draws", "2")


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'tracking.db'}"


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
        assert {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs} == {
            ("manifest", record.cell.split[:36]), ("manifest by colours", record.cell.features[:36])
        }  # fmt: skip
        curve = client.get_metric_history(run.info.run_id, "t2i/precision")
        assert [point.value for point in sorted(curve, key=lambda p: p.step)] == record.precision["t2i"]
        (artifact,) = client.list_artifacts(run.info.run_id, "average_precision")
        assert artifact.path.endswith(".parquet")


def test_a_repeated_run_logs_no_cell_twice_and_a_forced_one_replaces_it(bench, uri):
    bench(*ASK, "--mlflow-uri", uri)
    before = {run.info.run_id for run in runs(uri, "cell")}
    bench(*ASK, "--mlflow-uri", uri)
    assert {run.info.run_id for run in runs(uri, "cell")} == before
    (parent,) = runs(uri, "invocation")  # the same suite asked again is the same invocation
    bench(*ASK, "--mlflow-uri", uri, "--force")
    forced = {run.info.run_id for run in runs(uri, "cell")}
    assert len(forced) == 4 and not forced & before
    (again,) = runs(uri, "invocation")  # the numbers are the same, the seconds are not
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(uri, "cell")} == {again.info.run_id}
    assert again.info.start_time == parent.info.start_time


def test_records_that_mlflow_does_not_have_are_logged_by_the_next_run(bench, uri):
    bench(*ASK, "--mlflow-uri", "none")
    bench(*ASK, "--mlflow-uri", uri)
    assert len(runs(uri, "cell")) == 4


def test_an_interrupted_run_does_not_wait_for_mlflow(bench, uri, tmp_path):
    bench(*ASK)
    store = Store(tmp_path / "results")
    tracker, busy = Tracker(store, uri), threading.Event()
    tracker._link.do(lambda: busy.wait(60) and None)
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


def test_a_run_that_is_killed_while_it_makes_the_database_leaves_none_half_made(bench, uri, tmp_path):
    """At the tenth table, in a process of its own."""
    made = []

    def killed(target, *_, **__):
        made.append(target)
        if len(made) == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        event.listen(Table, "before_create", killed)
        bench(*ASK, "--mlflow-uri", uri)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "tracking.db").exists() and (tmp_path / "tracking.db.new").exists()
    assert bench(*ASK, "--mlflow-uri", uri).code == 0
    assert len(runs(uri, "cell")) == 4 and not (tmp_path / "tracking.db.new").exists()


def test_children_of_a_killed_run_are_cleared_and_logged_again(bench, uri, tmp_path):
    bench(*ASK, "--mlflow-uri", uri)
    client = MlflowClient(tracking_uri=uri)
    victim = runs(uri, "cell")[0]
    client.update_run(victim.info.run_id, status="RUNNING")
    bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", uri, data=False)
    children = runs(uri, "cell")
    assert len(children) == 4 and victim.info.run_id not in {run.info.run_id for run in children}


def test_sync_rebuilds_what_was_lost_exactly_and_once(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "figure_files", lambda findings: islice(figure_files(findings), 2))  # all take long
    uri = f"sqlite:///{tmp_path / 'lost.db'}"
    more = ("--methods", "prototype,clip", "--ablate", "prototype", "--shots", "0,1", "--draws", "2")
    assert bench(*ASK, "--mlflow-uri", uri).code == bench(*more, "--mlflow-uri", uri).code == 0
    assert bench(*more, "--mlflow-uri", uri, command="report").code == 0
    before = everything(uri)
    assert len({run["tags"].get("mlflow.parentRunId") for run in before}) == 3  # two invocations, and they have none
    parent = next(run for run in before if run["tags"]["kind"] == "invocation" and run["params"]["ablate"])
    assert {"report.html", "table.md", "tables/significance.json", "tables/ablation.json"} <= {
        file.split()[0] for file in parent["files"]
    }
    assert any(file.startswith("figures/manifest-shots.svg") for file in parent["files"])
    assert [step for step, _ in parent["metrics"]["manifest/prototype/mAP"]] == [0, 1]
    again = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    shutil.rmtree(tmp_path / "results" / "mlartifacts")
    for _ in range(2):
        assert bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", again, data=False).code == 0
        assert everything(again) == before
    assert len(runs(again, "cell")) == len(before) - 2 == len(Store(tmp_path / "results").records())


def test_sync_takes_away_what_the_store_has_no_more(bench, uri, tmp_path):
    bench(*ASK, "--mlflow-uri", uri)
    victim = Store(tmp_path / "results").records()[0].cell.digest
    (tmp_path / "results" / "cells" / f"{victim}.json").unlink()
    bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", uri, data=False)
    assert {run.data.tags["cell"] for run in runs(uri, "cell")}.isdisjoint({victim}) and len(runs(uri, "cell")) == 3
    shutil.rmtree(tmp_path / "results" / "invocations")
    bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", uri, data=False)
    assert not runs(uri, "invocation") and len(runs(uri, "cell")) == 3


def test_a_folder_of_the_same_name_on_another_machine_is_left_alone(bench, uri, tmp_path):
    """Two machines with one server: what one has is not taken for the other's."""
    results = tmp_path / "results"
    bench(*ASK, "--mlflow-uri", uri)
    results.rename(tmp_path / "theirs")
    bench("--methods", "clip", "--shots", "1", "--draws", "2", "--mlflow-uri", uri)
    bench("sync", "--results", str(results), "--mlflow-uri", uri, data=False)
    assert len(runs(uri, "cell")) == 6 and len(runs(uri, "invocation")) == 2
    moved = bench("sync", "--results", str(tmp_path / "theirs"), "--mlflow-uri", uri, data=False)
    assert "0 of 4 records were new" in moved.out


def test_parents_children_and_tables_are_found_by_mlflows_own_functions(bench, uri, tmp_path):
    bench(*ASK, "--mlflow-uri", uri)
    mlflow.set_tracking_uri(uri)
    try:
        (parent,) = mlflow.search_runs(
            search_all_experiments=True, filter_string="tags.kind = 'invocation'", output_format="list"
        )
        wanted = f"tags.mlflow.parentRunId = '{parent.info.run_id}' and params.method = 'prototype' and metrics.mAP > 0"
        children = mlflow.search_runs(search_all_experiments=True, filter_string=wanted, output_format="list")
        assert len(children) == 2
        mlflow.set_experiment("xshot-bench")
        table = mlflow.load_table("tables/methods.json", run_ids=[parent.info.run_id])
        shown = pd.read_csv(next((tmp_path / "results").glob("invocations/*/table.csv"))).dropna(subset="shots")
        assert list(table["method"]) == list(shown["method"])
        np.testing.assert_allclose(table["mean"].astype(float), shown["mean"], atol=1e-9)
    finally:
        mlflow.set_tracking_uri(None)


def test_an_interrupted_run_is_marked_so_and_finished_by_the_next(bench, uri, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xshot_bench.benchmarks.invocation.compare", broken)
        assert bench(*ASK, "--mlflow-uri", uri).code == 130
    (run,) = runs(uri, "invocation")
    assert run.info.status == "KILLED"
    assert bench(*ASK, "--mlflow-uri", uri).code == 0
    (run,) = runs(uri, "invocation")
    assert run.info.status == "FINISHED"
    children = runs(uri, "cell")
    assert len(children) == 4 and {c.data.tags["mlflow.parentRunId"] for c in children} == {run.info.run_id}


def test_sync_without_results_is_said(bench, tmp_path):
    called = bench("sync", "--results", str(tmp_path / "nowhere"), data=False)
    assert called.code == 2 and "holds no results" in called.err
