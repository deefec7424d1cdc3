"""Mirrors the store to MLflow: a parent run for each invocation, a child run for each cell. It never rules.

Whatever fails here is said once and ends nothing: the records are in ``results/``, and ``run_bench.py sync`` brings
MLflow up to date later. All calls are made by the one thread of `mlflow_link`, so that cells do not wait for a server.

An invocation that is asked again is one run still. A cell is a child of the first invocation that it belongs to.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xshot_bench.benchmarks import mlflow_entries as entries
from xshot_bench.benchmarks.invocations import Invocations, Invoked
from xshot_bench.benchmarks.mlflow_entries import CELL, INVOCATION, KIND, PARENT, RECORD, STORE
from xshot_bench.benchmarks.mlflow_link import AT_THE_END, WHEN_STOPPED, Link, Progress, shown
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.store import Store

logger = logging.getLogger(__name__)

EXPERIMENT = "xshot-bench"
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "running": "KILLED"}


def default_uri(results: Path) -> str:
    """The SQLite database in the results folder."""
    return f"sqlite:///{results.resolve() / 'mlflow.db'}"


@dataclass
class _Run:
    """A run that MLflow has: of what content, and under which run."""

    content: str
    id: str
    parent: str = ""


class Tracker:
    """One invocation's run in MLflow and its children. ``uri`` "none" tracks nothing. warn: say at once what fails."""

    def __init__(self, store: Store, uri: str, warn: bool = True) -> None:
        self.store = store
        self.logged = 0
        self._link = Link(uri, self._warn if warn else lambda _: None)
        self._invocations = Invocations(store)
        self._identity = self._experiment = ""
        self._cells: dict[str, _Run] = {}  # by cell digest
        self._parents: dict[str, _Run] = {}  # by invocation
        self._owner: dict[str, str] = {}  # cell digest -> the first invocation that it belongs to
        self._current = ""
        self._stopped = False

    @property
    def uri(self) -> str:
        """Where MLflow is, as it can be shown."""
        return shown(self._link.uri)

    @property
    def error(self) -> str:
        """What is wrong with MLflow, in one line; "" if nothing is."""
        return self._link.error

    @property
    def _client(self) -> Any:
        return self._link.client

    def start(self, invoked: Invoked) -> None:
        """Open the invocation's run."""
        self._link.do(lambda: self._open(invoked))

    def mirror(self, record: Record) -> None:
        """Log a record as a child run, unless MLflow has that very record already."""
        self._link.do(lambda: None if self._stopped else self._log_cell(record))

    def stop(self) -> None:
        """Log no more records, nor those that wait: an interrupted run ends at once, and the next one logs them."""
        self._stopped = True

    def end(self, invoked: Invoked) -> None:
        """Bring the invocation's run to what its folder says, if it is not."""
        self._link.do(lambda: self._log_invocation(invoked))

    def forget_all_but(self, records: Iterable[Record]) -> None:
        """Remove the runs of cells and invocations that the store does not have."""
        kept = {record.cell.digest for record in records}
        self._link.do(lambda: self._forget(kept))

    def finish(self, progress: Progress | None = None) -> None:
        """Wait until all is written, but not for a slow server: what it lacks is left to ``sync``."""
        patience = WHEN_STOPPED if self._stopped else AT_THE_END
        self._link.finish(None if self._link.local else patience, progress)

    def wait(self, progress: Progress | None = None) -> None:
        """Wait until all is written, however long it takes."""
        self._link.finish(progress=progress)

    def _warn(self, reason: str) -> None:
        later = f"run_bench.py sync --results {self.store.folder} --mlflow-uri {self.uri}"
        kept = f"No result is lost; `{later}` logs it later."
        logger.warning("MLflow at %s cannot be used: %s %s", self.uri, reason, kept)

    def _open(self, invoked: Invoked) -> None:
        self._connect()
        self._current = invoked.id
        if invoked.id in self._parents:
            self._client.update_run(self._parents[invoked.id].id, status="RUNNING")
        else:
            self._parents[invoked.id] = _Run("", self._new_parent(invoked))

    def _connect(self) -> None:
        if self._experiment:
            return
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._identity = self.store.identity()
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            place = (self.store.folder.resolve() / "mlartifacts").as_uri() if self._link.local else None
            self._experiment = self._client.create_experiment(EXPERIMENT, artifact_location=place)
        else:
            self._experiment = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(self._experiment)
        for invoked in self._invocations.all():
            for cell in invoked.cells:
                self._owner.setdefault(cell, invoked.id)
        for kind, key, found in (("invocation", INVOCATION, self._parents), ("cell", CELL, self._cells)):
            for run in self._runs(kind):
                tags = run.data.tags
                half = kind == "cell" and run.info.status == "RUNNING"  # left by a run that was killed
                if half or tags[key] in found:
                    self._client.delete_run(run.info.run_id)
                else:
                    found[tags[key]] = _Run(tags.get(RECORD, "unfinished"), run.info.run_id, tags.get(PARENT, ""))

    def _runs(self, kind: str) -> list[Any]:
        """What MLflow has of this store, the oldest first."""
        wanted = f"tags.{STORE} = '{self._identity}' and tags.{KIND} = '{kind}'"
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], wanted, max_results=1000, order_by=["attributes.start_time"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def _new_parent(self, invoked: Invoked) -> str:
        run = self._client.create_run(
            self._experiment,
            run_name=invoked.name,
            start_time=entries.invocation_times(invoked)[0],
            tags=entries.invocation_tags(invoked) | {STORE: self._identity},
        )
        self._client.log_batch(run.info.run_id, params=entries.invocation_params(invoked))
        self._client.log_text(run.info.run_id, invoked.suite.model_dump_json(indent=1), "suite.json")
        run_id: str = run.info.run_id
        return run_id

    def _log_cell(self, record: Record) -> None:
        self._connect()
        cell = record.cell
        owner = self._parents.get(self._owner.get(cell.digest, "")) or self._parents.get(self._current)
        parent = owner.id if owner else ""
        content = hashlib.sha256(record.model_dump_json().encode()).hexdigest()
        known = self._cells.get(cell.digest)
        if known and known.content == content:
            if known.parent != parent:
                self._client.set_tag(known.id, PARENT, parent)
                known.parent = parent
            return
        if known:
            self._client.delete_run(known.id)
        started, ended = entries.cell_times(record)
        run_id = self._client.create_run(
            self._experiment,
            run_name=entries.cell_name(record),
            start_time=started,
            tags=entries.cell_tags(record)
            | {STORE: self._identity, RECORD: content, **({PARENT: parent} if parent else {})},
        ).info.run_id
        self._client.log_batch(run_id, metrics=entries.cell_metrics(record), params=entries.cell_params(record))
        self._client.log_inputs(run_id, datasets=entries.cell_inputs(record))
        if record.ap_file:
            self._client.log_artifact(run_id, str(self.store.cells / record.ap_file), "average_precision")
        trace = self.store.cells / f"{cell.digest}.traceback.txt"
        if trace.is_file():  # a cell whose process was killed has none
            self._client.log_artifact(run_id, str(trace))
        self._client.set_terminated(run_id, "FAILED" if record.status == "failed" else "FINISHED", ended)
        self._cells[cell.digest] = _Run(content, run_id, parent)
        self.logged += 1

    def _log_invocation(self, invoked: Invoked) -> None:
        content = self._invocations.digest(invoked)
        run = self._parents[invoked.id]
        if run.content != content:
            if run.content:  # what MLflow was told cannot be taken back, so a new run takes the place of the old
                run = self._replaced(run, self._new_parent(invoked))
            folder = self._invocations.path(invoked)
            for path in self._invocations.files(invoked):
                inside = path.relative_to(folder).parent.as_posix()
                self._client.log_artifact(run.id, str(path), None if inside == "." else inside)
            self._client.log_batch(run.id, metrics=list(entries.invocation_metrics(folder)))
            self._client.log_inputs(run.id, datasets=entries.invocation_inputs(folder))
            for key, value in (entries.shown_tags(folder) | {RECORD: content}).items():
                self._client.set_tag(run.id, key, value)
            self._parents[invoked.id] = _Run(content, run.id)
        self._client.set_terminated(run.id, STATUS[invoked.status], entries.invocation_times(invoked)[1])
        self._current = ""

    def _replaced(self, old: _Run, run_id: str) -> _Run:
        """Put the children of a run under another one, and remove it."""
        for child in self._cells.values():
            if child.parent == old.id:
                self._client.set_tag(child.id, PARENT, run_id)
                child.parent = run_id
        self._client.delete_run(old.id)
        return _Run("", run_id)

    def _forget(self, kept: set[str]) -> None:
        self._connect()
        asked = {invoked.id for invoked in self._invocations.all()}
        for known, holds in ((self._cells, kept), (self._parents, asked)):
            for key in [key for key in known if key not in holds]:
                self._client.delete_run(known.pop(key).id)


def sync(store: Store, uri: str, records: Iterable[Record], progress: Progress | None = None) -> Tracker:
    """Bring MLflow to what the store says: every invocation and record once, and nothing else."""
    tracker = Tracker(store, uri, warn=False)
    left = {record.cell.digest: record for record in records}
    tracker.forget_all_but(left.values())
    for invoked in Invocations(store).all():
        tracker.start(invoked)
        for cell in invoked.cells:
            if cell in left:
                tracker.mirror(left.pop(cell))
        tracker.end(invoked)
    for record in left.values():  # of no invocation, so no run's children
        tracker.mirror(record)
    tracker.wait(progress)
    return tracker
