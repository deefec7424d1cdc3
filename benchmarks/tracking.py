"""Mirrors the store to MLflow: a parent run for each invocation, a child run for each cell. It never rules.

Whatever fails here is said once and ends nothing: the records are in ``results/``, and ``run_bench.py sync`` brings
MLflow up to date later. All calls are made by one thread, so that cells do not wait for the tracking server.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.store import Store

logger = logging.getLogger(__name__)

EXPERIMENT = "xshot-bench"
PARENT, CELL, RECORD, STORE = "mlflow.parentRunId", "cell", "record", "store"


def default_uri(results: Path) -> str:
    """The SQLite database in the results folder."""
    return f"sqlite:///{results.resolve() / 'mlflow.db'}"


class Tracker:
    """One invocation's run in MLflow and its children. ``uri`` "none" tracks nothing."""

    def __init__(self, store: Store, uri: str) -> None:
        self.store, self.uri = store, uri
        self.error = ""
        self.logged = 0
        self._identity = hashlib.sha256(str(store.folder.resolve()).encode()).hexdigest()[:16]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._parent = ""
        self._mirrored: dict[str, tuple[str, str]] = {}  # cell digest -> (record digest, run id)

    def start(self, name: str, content: dict[str, Any]) -> None:
        """Open the parent run; ``content`` is the invocation's suite or the like."""
        self._do(lambda: self._open(name, content))

    def mirror(self, record: Record) -> None:
        """Log a record as a child run, unless MLflow has that very record already."""
        self._do(lambda: self._log_cell(record))

    def finish(self, artifacts: dict[str, str], status: str = "FINISHED") -> None:
        """Put texts (file name -> content) on the parent run, close it, and wait until all is written."""
        self._do(lambda: self._close(artifacts, status))
        self._thread.shutdown(wait=True)

    def _do(self, action: Callable[[], None]) -> None:
        if self.uri == "none":
            return

        def guarded() -> None:
            if self.error:
                return
            try:
                action()
            except Exception as error:  # whatever the server or the database does, the benchmark goes on
                self.error = str(error).strip().partition("\n")[0] or type(error).__name__
                logger.warning(
                    "MLflow at %s cannot be used (%s). Results are kept in %s; `run_bench.py sync` logs them later.",
                    self.uri,
                    self.error,
                    self.store.folder,
                )

        self._thread.submit(guarded)

    def _open(self, name: str, content: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self.uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            local = self.uri.startswith("sqlite:")
            place = (self.store.folder.resolve() / "mlartifacts").as_uri() if local else None
            self._experiment = self._client.create_experiment(EXPERIMENT, artifact_location=place)
        else:
            self._experiment = found.experiment_id
        self._read_mirrored()
        run = self._client.create_run(
            self._experiment, run_name=name, tags={STORE: self._identity, "kind": "invocation"}
        )
        self._parent = run.info.run_id
        self._client.log_text(self._parent, json.dumps(content, indent=1), "suite.json")

    def _read_mirrored(self) -> None:
        """What MLflow has of this store; children left half-written by a killed run are removed."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                filter_string=f"tags.{STORE} = '{self._identity}' and tags.kind = 'cell'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                if run.info.status != "RUNNING" and tags[CELL] not in self._mirrored:
                    self._mirrored[tags[CELL]] = (tags[RECORD], run.info.run_id)
                else:
                    self._client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return

    def _log_cell(self, record: Record) -> None:
        from mlflow.entities import Metric, Param, RunTag

        cell = record.cell
        identity = hashlib.sha256(record.model_dump_json().encode()).hexdigest()
        known, old_run = self._mirrored.get(cell.digest, ("", ""))
        if known == identity:
            return
        if old_run:
            self._client.delete_run(old_run)
        tags = _tags(record) | {PARENT: self._parent, STORE: self._identity, "kind": "cell", RECORD: identity}
        name = f"{cell.method} {cell.dataset} X={cell.shots} draw {cell.draw}"
        run_id = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        numbers = record.metrics | _under("floor", record.floor) | _under("seconds", record.seconds)
        numbers |= _under("diagnostics", record.diagnostics)
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in numbers.items()],
            params=[Param(key, str(value)) for key, value in _parameters(record).items()],
            tags=[RunTag("status", record.status)],
        )
        if record.ap_file:
            self._client.log_artifact(run_id, str(self.store.cells / record.ap_file), "average_precision")
        if record.status == "failed":
            self._client.log_artifact(run_id, str(self.store.cells / f"{cell.digest}.traceback.txt"))
        self._client.set_terminated(run_id, "FAILED" if record.status == "failed" else "FINISHED")
        self._mirrored[cell.digest] = (identity, run_id)
        self.logged += 1

    def _close(self, artifacts: dict[str, str], status: str) -> None:
        for name, content in artifacts.items():
            self._client.log_text(self._parent, content, name)
        self._client.set_terminated(self._parent, status)


def sync(store: Store, uri: str, records: Iterable[Record]) -> Tracker:
    """Bring MLflow to what the store says; a record that is there already is not logged again."""
    tracker = Tracker(store, uri)
    tracker.start("sync", {})
    for record in records:
        tracker.mirror(record)
    tracker.finish({})
    return tracker


def _tags(record: Record) -> dict[str, str]:
    cell = record.cell
    return {
        CELL: cell.digest,
        "method": cell.method,
        "dataset": cell.dataset,
        "encoder": cell.encoder,
        "shots": str(cell.shots),
        "seed": str(cell.draw),
        "gallery": cell.gallery,
        "split_digest": cell.split,
        "features_digest": cell.features,
        "git_commit": record.provenance.commit,
        "git_dirty": str(record.provenance.dirty).lower(),
    } | ({"reason": record.reason[:5000]} if record.reason else {})


def _parameters(record: Record) -> dict[str, Any]:
    cell = record.cell
    named = {"method": cell.method, "dataset": cell.dataset, "encoder": cell.encoder, "gallery": cell.gallery}
    return named | {"shots": cell.shots, "seed": cell.draw} | _under("method", cell.parameters)


def _under(group: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {f"{group}/{name}": value for name, value in numbers.items()}
