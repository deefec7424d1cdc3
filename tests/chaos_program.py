"""What `chaos.py` disturbs: the program on one small grid, what an undisturbed run came to, and what must hold."""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from contextlib import closing, suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("run_bench", ROOT / "run_bench.py")
run_bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_bench)  # makes `xshot_bench` this tree, in workers too
METHODS = "random,clip,prototype,ridge,drowsy,drowsy{nap=0.13}"
CELLS = 24
LIMIT = 240  # seconds after which a run hangs
DROWSY = '''
import os, time
from xshot_bench.methods.base import EmbeddingMethod

class Drowsy(EmbeddingMethod):
    """Sleeps, and notes each time that it is fitted."""
    nap: float = 0.12
    def fit(self, task):
        with open(os.environ["CHAOS_NOTES"], "a") as notes:
            notes.write(f"{self.nap} {task.shots} {task.seed}\\n")
        time.sleep(self.nap)
    def embed(self, x, modality):
        return x
'''


class Lost(Exception):
    """What must not be."""


def hold(fact: object, what: str) -> None:
    if not fact:
        raise Lost(what)


class World:
    """What all rounds share: the data, an empty MLflow database, and what an undisturbed run came to."""

    def __init__(self, work: Path) -> None:
        from conftest import write_colours

        from xshot_bench.benchmarks.mlflow_link import Link

        self.work, self.data, self.plugin = work, work / "data", work / "drowsy.py"
        if not (work / "ready").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir(parents=True)
            write_colours(self.data)
            self.plugin.write_text(DROWSY)
            shutil.rmtree(work / "undisturbed", ignore_errors=True)
            Link(f"sqlite:///{work / 'empty.db'}", print).client.search_experiments()
            run = Run(self, work / "undisturbed", self.arguments(work / "undisturbed"), cache="cache")
            hold(run.wait() == 0, f"the undisturbed run failed: {run.err}")
            (work / "table").write_text(run.out)
            (work / "ready").touch()
        self.tables = tables((work / "table").read_text(), work / "undisturbed/results")
        self.cells = {path.name for path in (work / "undisturbed/results/cells").glob("*.json")}
        hold(len(self.cells) == CELLS, f"{len(self.cells)} cells")

    def arguments(self, folder: Path, jobs: int = 1) -> list[str]:
        asked = ["--methods", METHODS, "--shots", "1,2", "--draws", "2", "--datasets", "manifest", "--format", "github"]
        asked += ["--root", str(self.data), "--encoder", "colours", "--plugin", str(ROOT / "tests/plugins/colours.py")]
        asked += ["--plugin", str(self.plugin), "--jobs", str(jobs), "--batch-size", "4", "--device", "cpu"]
        return [*asked, "--results", str(folder / "results")]


class Run:
    """The program, started in a session of its own. cache: the folder's own, unless one of the world's is named."""

    def __init__(self, world: World, folder: Path, arguments: list[str], *, cache: str = "", anew: bool = False,
                 largest: int = 0, clock: bool = False) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = (world.work / f"{name}-{os.getpid()}-{id(self)}" for name in ("out", "err"))
        settings = {"CHAOS_NOTES": str(folder / "notes"), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        settings["XSHOT_BENCH_CACHE"] = str(world.work / cache if cache else folder / "cache")
        for path in (self._out, self._err):
            path.touch()  # it may be killed before it says anything
        self.pid = os.fork()
        if not self.pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the program answers it, as a new process has it
                os.setsid()
                for stream, path in ((1, self._out), (2, self._err)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                os.environ |= settings
                faulthandler.enable(2)
                if os.geteuid() == 0:
                    _respect_permissions()
                if clock:
                    _watch(folder / "clock")
                if largest:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                if anew:
                    os.execv(
                        sys.executable, [sys.executable, "-X", "faulthandler", str(ROOT / "run_bench.py"), *arguments]
                    )
                sys.argv = ["run_bench.py", *arguments]
                run_bench.main()
            except SystemExit as ending:
                sys.stdout.flush()
                os._exit(int(ending.code or 0))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        while os.getpgid(self.pid) != self.pid:  # it is no group yet that a signal could be sent to
            time.sleep(0.001)

    @property
    def ended(self) -> bool:
        """Whether it is over; it is not reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait(self) -> int:
        """The exit code; minus the signal's number if one ended it. Its workers end with it."""
        end = time.monotonic() + LIMIT
        while not self.ended and time.monotonic() < end:
            time.sleep(0.01)
        hung = not self.ended
        if hung:
            os.kill(self.pid, signal.SIGABRT)  # it says where it is
            time.sleep(3)
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        hold(not hung, f"it hung: {self.err[-6000:]}")
        end = time.monotonic() + 60
        with suppress(ProcessLookupError):
            while True:
                os.killpg(self.pid, 0)
                if time.monotonic() > end:
                    os.killpg(self.pid, signal.SIGKILL)
                    raise Lost("its workers outlived it by a minute")
                time.sleep(0.02)
        return code

    def forget(self) -> None:
        """Remove what it said."""
        for path in (self._out, self._err):
            path.unlink(missing_ok=True)


def _respect_permissions() -> None:
    """Root gives up its right to write what is read-only, for what it starts as well (capabilities 1 and 2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for n in range(3):
        sets[n] &= ~0b110
    if libc.capset(header, sets) or libc.prctl(24, 1, 0, 0, 0) or libc.prctl(24, 2, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the rights of root cannot be given up")


def _watch(path: Path) -> None:
    """From now on this process takes the time from a clock that is wrong by the seconds in a file, if there is one."""
    from xshot_bench.benchmarks import invocations, provenance

    def wrong() -> float:
        return float(path.read_text() or 0) if path.exists() else 0.0

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=wrong())

    right = time.time
    time.time = lambda: right() + wrong()
    time.time_ns = lambda: int(1e9 * time.time())
    invocations.datetime = provenance.datetime = Wrong


def tables(printed: str, results: Path) -> tuple[str, str]:
    """The table that was printed and the one that was kept as JSON, without what no two runs share: the seconds."""
    (kept,) = results.glob("invocations/*/table.json")
    lines = [line.rpartition("|")[0].rpartition("|")[0] if line[:1] == "|" else line for line in printed.splitlines()]
    return "\n".join(lines), re.sub(r'"seconds": [^,\n]*', '"seconds"', kept.read_text())


def check_store(results: Path) -> None:
    """Every file is whole and belongs there."""
    from xshot_bench.benchmarks.records import Record

    tables = set()
    for path in (results / "cells").glob("*.json"):
        record = Record.model_validate_json(path.read_bytes())
        content = (results / "cells" / record.ap_file).read_bytes()
        hold(record.status == "done" and record.cell.digest == path.stem, f"{path.name} is wrong")
        hold(hashlib.sha256(content).hexdigest() == record.ap_sha256, f"{record.ap_file} is not what was written")
        tables.add(record.ap_file)
    others = {path.name for path in (results / "cells").iterdir() if path.suffix != ".json"}
    hold(others == tables, f"left beside the records: {sorted(others ^ tables)}")
    left = [str(p) for p in results.rglob(".*") if p != results / ".lock" and "mlartifacts" not in p.parts]
    hold(not left, f"temporary files: {left}")
    for path in [*results.glob("splits/*.json"), *results.glob("invocations/*/*.json")]:
        json.loads(path.read_text())
    (note,) = results.glob("invocations/*/invocation.json")
    hold(json.loads(note.read_text())["status"] == "finished", note.read_text())


def check_mlflow(results: Path, cells: set[str]) -> None:
    """Each run is there once, and finished."""
    asked = """select tags.key, tags.value, runs.status from runs join tags using (run_uuid)
               where runs.lifecycle_stage = 'active' and tags.key in ('cell', 'invocation')"""
    with closing(sqlite3.connect(results / "mlflow.db")) as database:
        found = database.execute(asked).fetchall()
    hold({status for *_, status in found} == {"FINISHED"}, f"MLflow: {Counter(status for *_, status in found)}")
    hold(sorted(value for key, value, _ in found if key == "cell") == sorted(cells), f"MLflow has {len(found)} runs")
    hold(sum(key == "invocation" for key, *_ in found) == 1, "MLflow has not one invocation")
