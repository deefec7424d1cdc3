"""A cell that hangs, eats the memory or breaks its process costs itself and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from xshot_bench.benchmarks.provenance import provenance
from xshot_bench.benchmarks.records import Cell, Record, Result
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tracking import sync

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = [ROOT / "tests/plugins/colours.py", ROOT / "tests/plugins/misbehaved.py"]
GOOD = ("clip", "prototype", "misbehaved")
TIMEOUT, MEMORY = "took longer than --cell-timeout 6 s", "used more than --cell-memory 0.5 GB"
QUICK = {"exit": "its process ended itself (exit code 3)", "hang": TIMEOUT, "fill": MEMORY}
REASONS = QUICK | {
    "sysexit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "segfault": "its process was killed (SIGSEGV)",
    "kill": "its process was killed (SIGKILL",
    "stop": TIMEOUT,
    "replace": "its process does not answer any more",
    "close": "its process ended itself (exit code 0)",
    "brood": TIMEOUT,
    "fill_elsewhere": MEMORY,
    "huge": "can't allocate memory",
    "nan": "ScoringError",
    "shape": "ScoringError",
    "diagnosis": "ValidationError",
}  # fmt: skip
HARMLESS = ("leave", "chatter")  # it takes its leftovers away, or turns them elsewhere


@dataclass
class Run:
    """A run of the program as a process of its own; ``mark`` is in the environment of all that it starts."""

    folder: Path
    process: subprocess.Popen[str]
    mark: str

    def records(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in Store(self.folder / "results").records():
            found.setdefault(record.cell.method, []).append(record)
        return found

    def alive(self) -> list[psutil.Process]:
        """The processes that the run started and that are there still."""
        return [one for one in psutil.process_iter() if one.pid != os.getpid() and self._started(one)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("XSHOT_TEST_RUN") == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def all_gone(self, within: float = 5.0) -> bool:
        deadline = time.monotonic() + within
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.alive()


def start(folder: Path, data: Path, methods: tuple[str, ...], *options: str) -> Run:
    mark = uuid.uuid4().hex
    plugins = [part for plugin in PLUGINS for part in ("--plugin", str(plugin))]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_bench.py"), "--methods", ",".join(methods), "--shots", "1",
         "--datasets", "manifest", "--root", str(data), "--encoder", "colours", "--format", "json", *plugins,
         "--results", str(folder / "results"), "--cache", str(folder / "cache"), "--mlflow-uri", "none", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "XSHOT_TEST_RUN": mark},
    )  # fmt: skip
    return Run(folder, process, mark)


def named(how: str) -> str:
    return f"misbehaved{{how={how}}}"


@pytest.fixture(scope="module")
def undisturbed(colour_folder, tmp_path_factory) -> dict[str, list[dict[str, float]]]:
    """Metrics of the good methods, run in one process without limits."""
    run = start(tmp_path_factory.mktemp("undisturbed"), colour_folder, GOOD, "--draws", "2", "--jobs", "1")
    _, err = run.process.communicate(timeout=120)
    assert run.process.returncode == 0, err
    return {method: [record.metrics for record in found] for method, found in run.records().items()}


def check(run: Run, reasons: dict[str, str], undisturbed: dict[str, list[dict[str, float]]]) -> None:
    """All that must hold after a run in which the methods named in ``reasons`` misbehaved."""
    out, err = run.process.communicate(timeout=300)
    assert run.all_gone(), run.alive()
    assert run.process.returncode == 1, err
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    records = run.records()
    seen = {how: {(record.status, record.reason) for record in records[named(how)]} for how in reasons}
    wrong = {how: found for how, found in seen.items() if not _all_failed(found, reasons[how])}
    assert not wrong
    assert all(reason in rows[named(how)]["reason"] for how, reason in reasons.items())
    for method, metrics in undisturbed.items():
        assert [record.metrics for record in records[method]] == metrics, method
        assert not rows[method]["failed"]


def _all_failed(found: set[tuple[str, str]], expected: str) -> bool:
    return bool(found) and all(status == "failed" and expected in reason for status, reason in found)


def test_what_misbehaves_costs_its_own_cells(tmp_path, colour_folder, undisturbed):
    methods = (*map(named, QUICK), *GOOD)
    options = ("--draws", "2", "--jobs", "2", "--cell-timeout", "6", "--cell-memory", "500M")
    check(start(tmp_path, colour_folder, methods, *options), QUICK, undisturbed)

    again = start(tmp_path, colour_folder, (named("exit"), *GOOD), "--draws", "2", "--dry-run")
    out, _ = again.process.communicate(timeout=60)
    assert "6 done, 0 declined, 2 failed. 2 to compute" in out


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_so_does_everything_that_can_go_wrong(tmp_path, colour_folder, undisturbed, jobs):
    methods = (*map(named, REASONS), *map(named, HARMLESS), *GOOD)
    options = ("--draws", "2", "--jobs", jobs, "--cell-timeout", "6s", "--cell-memory", "0.5G")
    run = start(tmp_path, colour_folder, methods, *options)
    check(run, REASONS, undisturbed)
    for how in HARMLESS:
        metrics = [record.metrics for record in run.records()[named(how)]]
        assert metrics == undisturbed["misbehaved"], how


def test_nothing_outlives_a_run_that_is_killed(tmp_path, colour_folder):
    """Not even what a method has started and let go."""
    run = start(tmp_path, colour_folder, (named("brood"),), "--draws", "1", "--cell-timeout", "1h")
    deadline = time.monotonic() + 60
    while sum("sleep(1000)" in " ".join(one.cmdline()) for one in _seen(run)) < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(run.alive()) > 5
    run.process.kill()
    run.process.wait()
    assert run.all_gone(), run.alive()


def _seen(run: Run) -> Iterator[psutil.Process]:
    for process in run.alive():
        try:
            process.cmdline()
            yield process
        except psutil.Error:
            continue


def test_mlflow_is_told_of_a_cell_without_a_traceback(tmp_path):
    """A process that was killed leaves none."""
    cell = Cell(
        method="m", parameters={}, code="c", dataset="d", encoder="e", features="f", split="s", gallery="test",
        protocol="xshot/1", shots=1, draw=0,
    )  # fmt: skip
    store = Store(tmp_path / "results")
    with store.writing():
        record = store.add(Result(Record(cell=cell, status="failed", reason=TIMEOUT, provenance=provenance("cpu"))))
        tracker = sync(store, f"sqlite:///{tmp_path / 'mlflow.db'}", [record])
    assert (tracker.error, tracker.logged) == ("", 1)
