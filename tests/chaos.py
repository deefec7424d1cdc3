"""Disturbs runs at random moments and holds that nothing is lost: python tests/chaos.py --rounds 200 --work FOLDER

A round runs one small grid, disturbs it once or several times, runs it to its end, and then checks that the store is
whole, that no stored cell was computed again, that the tables are an undisturbed run's byte for byte (but for seconds),
and that MLflow has every run once. Rounds are drawn from ``--seed`` and their number; those that passed are noted in
``FOLDER/passed`` and not done again. What a failed round left is kept.

The program is started anew in some rounds, and forked from this process with all imported in the others, as that is
quick. Full disks are real where a tmpfs can be mounted, else a limit on the size of files. The clock that jumps is
Python's, in a forked run (libfaketime would make sleeping fail and threads wait for ever).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from chaos_program import CELLS, Lost, Run, World, check_mlflow, check_store, hold, tables

BLOWS = {  # what is done, and how the run may end; the first of a round's blows goes by its number
    "kill": (-signal.SIGKILL, 0),
    "interrupt all": (130, -signal.SIGINT, 0),
    "full disk": (2, 0),
    "read-only": (2, 0),
    "second run": (0, 2),  # 2: the other one was faster
    "terminate": (130, -signal.SIGTERM, 0),
    "kill all": (-signal.SIGKILL, 0),
    "small files": (2, 0),
    "interrupt": (130, -signal.SIGINT, 0),
    "clock": (0,),
}


class Round:
    """One grid with its blows."""

    def __init__(self, world: World, seed: int, number: int) -> None:
        self.world, self.rng = world, Random(f"{seed}/{number}")
        self.folder = world.work / f"round{number}"
        self.jobs = self.rng.choice((1, 1, 1, 1, 2))
        self.anew = self.rng.random() < 0.12
        self.blows = [self.rng.choice(list(BLOWS)) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        self.blows[0] = list(BLOWS)[number % len(BLOWS)]
        self.encodes = self.rng.random() < 0.4
        self.done: list[str] = []
        self.cut_off = 0  # runs that did not come to their end
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

    def _start(self, **more: object) -> Run:
        cache = "" if self.encodes else "cache"
        arguments = self.world.arguments(self.folder, self.jobs)
        run = Run(self.world, self.folder, arguments, cache=cache, **more)  # type: ignore[arg-type]
        self._runs.append(run)
        return run

    def _disturbed(self, blow: str, kept: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """One run that meets a blow; returns the records that there are then."""
        if blow == "full disk" and not self._mounted:
            blow = "small files"
        largest = self.rng.choice((300, 3000, 5000, 20_000, 100_000)) if blow == "small files" else 0
        run = self._start(anew=self.anew and blow != "clock", largest=largest, clock=blow == "clock")
        moment = self._moment(run)
        second = self._strike(blow, run)
        code = run.wait()
        self._mend(blow)
        self.cut_off += code != 0
        self.done.append(f"{blow} {moment} -> {code}")
        hold(code in BLOWS[blow], f"{blow}: exit code {code}: {run.err[-3000:]}")
        said = re.sub(r"Exception ignored in.*\nTraceback", "", run.err)  # Ctrl-C in a callback of Python's own
        hold("Traceback" not in said, f"{blow}: {run.err[-3000:]}")
        if code == 2 and largest != 300:  # which cuts the message, too
            reasons = "another run is writing" if second else "full disk|cannot be written|cannot be read or written"
            hold(re.search(f"^Error: .*({reasons})", run.err, re.M), run.err)
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
            (self.folder / "clock").write_text(self.rng.choice(("-3e5", "3e7", "-3e8", "90")))
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
        run = self._start(anew=self.anew)
        hold(run.wait() == 0, f"the last run failed: {run.err[-3000:]}")
        found = tables(run.out, self.folder / "results")
        hold(found == self.world.tables, f"another table:\n{found}\n{run.err}")
        now = self._records()
        hold(kept.items() <= now.items(), "cells that were stored were computed again")
        hold(now.keys() == self.world.cells, f"{len(now)} records")
        fits = Counter((self.folder / "notes").read_text().splitlines())
        again = sum(fits.values()) - len(fits)
        # a process has its next cell while the result of its last one is stored, so there may be two of each in flight
        most = self.cut_off * (1 if self.jobs == 1 else 2 * self.jobs)
        hold(again <= most, f"{again} cells in flight were lost by {self.cut_off} blows")
        check_store(self.folder / "results")
        sync = Run(self.world, self.folder, ["sync", "--results", str(self.folder / "results")])
        self._runs.append(sync)
        hold(sync.wait() == 0, f"sync failed: {sync.err[-3000:]}")
        check_mlflow(self.folder / "results", {name.removesuffix(".json") for name in self.world.cells})
        left = [path.name for path in (self.folder / "cache").rglob(".*")]
        hold(not left, f"left in the cache: {left}")


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
