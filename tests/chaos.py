"""Disturbs runs at random moments and holds that nothing is lost: python tests/chaos.py --rounds 200 --work FOLDER

A round runs one small grid, disturbs it once or several times, runs it to its end, and then checks that the store is
whole, that no stored cell was computed again, that the tables are an undisturbed run's byte for byte (but for seconds),
and that MLflow has every run once. Rounds are drawn from ``--seed`` and their number; those that passed are noted in
``FOLDER/passed`` and not done again. What a failed round left is kept.

The program is started anew in some rounds, and forked from this process with all imported in the others, as that is
quick. Full disks are real where a tmpfs can be mounted, else a limit on the size of files. A clock jumps by
libfaketime, where that is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("run_bench", ROOT / "run_bench.py")
run_bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_bench)  # makes `xshot_bench` this tree, in workers too
METHODS = "random,clip,prototype,ridge,drowsy,drowsy{nap=0.13}"
CELLS = 24
NOBODY = 65534
LIMIT = 240  # seconds after which a run hangs
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
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
BLOWS = {  # what is done, and how the run may end
    "kill": (-signal.SIGKILL, 0),
    "kill all": (-signal.SIGKILL, 0),
    "terminate": (130, -signal.SIGTERM, 0),
    "interrupt": (130, -signal.SIGINT, 0),
    "interrupt all": (130, -signal.SIGINT, 0),
    "full disk": (2, 0),
    "read-only": (2, 0),
    "small files": (2, 0),
    "clock": (0,),
    "second run": (0,),
}


class Lost(Exception):
    """What must not be."""


def hold(fact: object, what: str) -> None:
    if not fact:
        raise Lost(what)


class World:
    """What all rounds share: the data, an empty MLflow database, and what an undisturbed run came to."""

    def __init__(self, work: Path) -> None:
        from conftest import write_colours

        self.work, self.data, self.plugin = work, work / "data", work / "drowsy.py"
        if not (work / "ready").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir(parents=True)
            write_colours(self.data)
            self.plugin.write_text(DROWSY)
            shutil.rmtree(work / "undisturbed", ignore_errors=True)
            from mlflow import MlflowClient

            MlflowClient(f"sqlite:///{work / 'empty.db'}").search_experiments()
            for style in ("json", "github"):
                run = Run(self, work / "undisturbed", self.arguments(work / "undisturbed", style=style), cache="cache")
                hold(run.wait() == 0, f"the undisturbed run failed: {run.err}")
                (work / f"table.{style}").write_text(without_seconds(run.out))
            (work / "ready").touch()
        self.tables = {style: (work / f"table.{style}").read_text() for style in ("json", "github")}
        self.cells = {path.name for path in (work / "undisturbed/results/cells").glob("*.json")}
        hold(len(self.cells) == CELLS, f"{len(self.cells)} cells")

    def arguments(self, folder: Path, jobs: int = 1, style: str = "json") -> list[str]:
        asked = ["--methods", METHODS, "--shots", "1,2", "--draws", "2", "--datasets", "manifest", "--format", style]
        asked += ["--root", str(self.data), "--encoder", "colours", "--plugin", str(ROOT / "tests/plugins/colours.py")]
        asked += ["--plugin", str(self.plugin), "--jobs", str(jobs), "--batch-size", "4", "--device", "cpu"]
        return [*asked, "--results", str(folder / "results")]


class Run:
    """The program, started in a session of its own. cache: the folder's own, unless one of the world's is named."""

    def __init__(self, world: World, folder: Path, arguments: list[str], *, cache: str = "", anew: bool = False,
                 nobody: bool = False, largest: int = 0, clock: bool = False) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = (world.work / f"{name}-{os.getpid()}-{id(self)}" for name in ("out", "err"))
        settings = {"CHAOS_NOTES": str(folder / "notes"), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        settings["XSHOT_BENCH_CACHE"] = str(world.work / cache if cache else folder / "cache")
        if clock:
            (folder / "clock").write_text("+0")
            settings |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
                         "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                for stream, path in ((1, self._out), (2, self._err)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                os.environ |= settings
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
                if nobody:
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                if largest:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                if anew or clock:
                    os.execv(sys.executable, [sys.executable, str(ROOT / "run_bench.py"), *arguments])
                sys.argv = ["run_bench.py", *arguments]
                run_bench.main()
            except SystemExit as ending:
                sys.stdout.flush()
                os._exit(int(ending.code or 0))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)

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
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        hold(not hung, f"it hung: {self.err[-2000:]}")
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


class Round:
    """One grid with its blows."""

    def __init__(self, world: World, seed: int, number: int) -> None:
        self.world, self.rng = world, Random(f"{seed}/{number}")
        self.folder = world.work / f"round{number}"
        self.jobs = self.rng.choice((1, 1, 1, 1, 2))
        self.anew = self.rng.random() < 0.12
        possible = [blow for blow in BLOWS if blow != "clock" or FAKETIME]
        self.blows = [self.rng.choice(possible) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        self.nobody = "read-only" in self.blows and os.geteuid() == 0  # who may not be allowed to start our Python
        if self.nobody:
            self.jobs, self.anew = 1, False
            self.blows = ["kill" if blow == "clock" else blow for blow in self.blows]
        self.encodes = self.rng.random() < 0.4 and "clock" not in self.blows  # libfaketime hangs in forked workers
        self.done: list[str] = []
        self._runs: list[Run] = []
        self._mounted = False

    def __str__(self) -> str:
        how = ", ".join(self.done) or ", ".join(self.blows)
        return f"{self.jobs} job{'s' * (self.jobs > 1)}{', anew' * self.anew}{', encodes' * self.encodes}: {how}"

    def play(self) -> None:
        """Raises `Lost` where something is; else leaves nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if "full disk" in self.blows:
            command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.folder)]
            self._mounted = not subprocess.run(command, check=False, capture_output=True).returncode
        try:
            (self.folder / "results").mkdir()
            if self.rng.random() < 0.7:  # to make the database takes long
                shutil.copy(self.world.work / "empty.db", self.folder / "results/mlflow.db")
            if self.nobody:
                subprocess.run(["chown", "-R", str(NOBODY), str(self.folder)], check=True)
            kept: dict[str, tuple[int, int]] = {}
            for blow in self.blows:
                kept = self._disturbed(blow, kept)
            self._finished(kept)
        except Lost:
            if self._mounted:  # so that it can be looked at
                shutil.copytree(self.folder, self.folder.with_name(self.folder.name + "-kept"), dirs_exist_ok=True)
            raise
        finally:
            if self._mounted:
                subprocess.run(["umount", "-l", str(self.folder)], check=True)
        shutil.rmtree(self.folder)
        for run in self._runs:
            run.forget()

    def _start(self, style: str = "json", **more: object) -> Run:
        cache = "" if self.encodes else "cache"
        arguments = self.world.arguments(self.folder, self.jobs, style)
        run = Run(self.world, self.folder, arguments, cache=cache, nobody=self.nobody, **more)  # type: ignore[arg-type]
        self._runs.append(run)
        return run

    def _disturbed(self, blow: str, kept: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """One run that meets a blow; returns the records that there are then."""
        if blow == "full disk" and not self._mounted:
            blow = "small files"
        largest = self.rng.choice((300, 3000, 5000, 20_000, 100_000)) if blow == "small files" else 0
        run = self._start(anew=self.anew, largest=largest, clock=blow == "clock")
        moment = self._moment(run)
        second = self._strike(blow, run)
        code = run.wait()
        self._mend(blow)
        self.done.append(f"{blow} {moment} -> {code}")
        hold(code in BLOWS[blow], f"{blow}: exit code {code}: {run.err[-3000:]}")
        hold("Traceback" not in run.err, f"{blow}: {run.err[-3000:]}")
        if code == 2 and largest != 300:  # which cuts the message, too
            hold(
                re.search(r"^Error: .*(full disk|cannot be written|cannot be read or written)", run.err, re.M), run.err
            )
        if second:
            hold(second.wait() == 0 or "another run is writing" in second.err, f"second run: {second.err[-3000:]}")
        now = self._records()
        hold(kept.items() <= now.items(), f"{blow}: records that were stored before have changed")
        if self.encodes and self.rng.random() < 0.4:
            self._damage_cache()
        return now

    def _moment(self, run: Run) -> str:
        """Wait for it: so many cells stored, or files in the cache, or seconds since the start; and a little."""
        what = self.rng.choice(("cells", "cells", "cells", "seconds", "files" if self.encodes else "cells"))
        count = self.rng.randrange(40) if what == "files" else self.rng.randrange(CELLS + 1)
        place = self.folder / ("results/cells" if what == "cells" else "cache")
        pause = self.rng.random() * self.rng.choice((0, 0.1, 1))
        start = time.monotonic()
        while not run.ended:
            there = sum(1 for _ in place.glob("*.json" if what == "cells" else "*/*/*"))
            if time.monotonic() - start > count / 8 if what == "seconds" else there >= count:
                break
            time.sleep(0.003)
        time.sleep(pause)
        return f"after {count / 8 if what == 'seconds' else count} {what} and {pause:.2f} s"

    def _strike(self, blow: str, run: Run) -> Run | None:
        """Do it; returns the second run if there is one."""
        signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
        name = blow.removesuffix(" all")
        if name in signals and not run.ended:
            (os.killpg if name != blow else os.kill)(run.pid, signals[name])
        elif blow == "full disk":
            with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        elif blow == "read-only":
            self._permit(0o500)
        elif blow == "clock":
            (self.folder / "clock").write_text(self.rng.choice(("-3d", "+400d", "-10y", "+90")))
        elif blow == "second run":
            return self._start()
        return None

    def _mend(self, blow: str) -> None:
        if blow == "full disk":
            (self.folder / "filler").unlink()
        elif blow == "read-only":
            self._permit(0o700)

    def _permit(self, mode: int) -> None:
        for place in ("results", "results/cells", "results/splits", "results/invocations"):
            with suppress(FileNotFoundError):
                (self.folder / place).chmod(mode)

    def _damage_cache(self) -> None:
        files = sorted(path for path in (self.folder / "cache").rglob("*") if path.is_file())
        if files:
            victim = self.rng.choice(files)
            content = victim.read_bytes()
            victim.write_bytes(content[: self.rng.randrange(len(content) + 1)])
            self.done.append(f"{victim.name[-30:]} cut")

    def _records(self) -> dict[str, tuple[int, int]]:
        """Which file each record is, and when it was written."""
        found = {path.name: path.stat() for path in (self.folder / "results/cells").glob("*.json")}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}

    def _finished(self, kept: dict[str, tuple[int, int]]) -> None:
        """Run it to its end, and check all that was left."""
        for style in ("json", "github"):
            run = self._start(style, anew=self.anew and style == "json")
            hold(run.wait() == 0, f"the last run failed: {run.err[-3000:]}")
            hold(without_seconds(run.out) == self.world.tables[style], f"another {style} table:\n{run.out}\n{run.err}")
        now = self._records()
        hold(kept.items() <= now.items(), "cells that were stored were computed again")
        hold(now.keys() == self.world.cells, f"{len(now)} records")
        fits = Counter((self.folder / "notes").read_text().splitlines())
        again = sum(fits.values()) - len(fits)
        hold(again <= self.jobs * len(self.blows), f"{again} cells were lost by {len(self.blows)} blows")
        check_store(self.folder / "results")
        sync = Run(self.world, self.folder, ["sync", "--results", str(self.folder / "results")])
        self._runs.append(sync)
        hold(sync.wait() == 0, f"sync failed: {sync.err[-3000:]}")
        check_mlflow(self.folder / "results", {name.removesuffix(".json") for name in self.world.cells})
        left = [path.name for path in (self.folder / "cache").rglob(".*")]
        hold(not left, f"left in the cache: {left}")


def without_seconds(table: str) -> str:
    """The table without what no two runs share: how long its cells took, the last column."""
    lines = [line.rpartition("|")[0].rpartition("|")[0] if line[:1] == "|" else line for line in table.splitlines()]
    return re.sub(r'"seconds": [^,\n]*', '"seconds"', "\n".join(lines))


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


def main() -> int:
    """Play the rounds; 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="a folder for what the rounds write")
    parser.add_argument("--only", type=int, help="one round by its number, also if it passed")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    world = World(options.work.resolve())
    world.work.chmod(0o755)
    passed = world.work / "passed"
    known = passed.read_text().split() if passed.exists() else []
    failed, start = [], time.monotonic()
    for number in range(options.rounds) if options.only is None else [options.only]:
        if f"{options.seed}/{number}" in known and options.only is None:
            continue
        game, begun = Round(world, options.seed, number), time.monotonic()
        try:
            game.play()
            said = "nothing lost"
            with passed.open("a") as file:
                file.write(f"{options.seed}/{number}\n")
        except Lost as loss:
            said = f"LOST: {loss}"
            failed.append(number)
        print(f"{number + 1}/{options.rounds} ({time.monotonic() - begun:.0f} s) {game}: {said}", flush=True)
    print(f"{len(failed)} rounds lost something: {failed}. {(time.monotonic() - start) / 60:.0f} minutes.")
    return 1 if failed else 0


if __name__ == "__main__":
    import xshot_bench.benchmarks.invocation  # noqa: F401 - so that forked runs start at once

    sys.exit(main())
