"""How far a run is, on standard error: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from xshot_bench.benchmarks.records import Record

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Stages of encoding, then cells: k of n, and the time left."""

    def __init__(self) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._said = time.monotonic()
        self._done = self._total = 0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage named ``name`` has done ``done`` of ``total``."""
        if self._bar:
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(name, total=total)
            self._bar.update(self._tasks[name], completed=done, total=total)
            return
        now = time.monotonic()
        since, before = self._started.setdefault(name, (now, done))  # the rate leaves out what came before the first
        if now - self._said >= EVERY or done == total:
            left = (
                f", about {(now - since) * (total - done) / (done - before):.0f} s left"
                if before < done < total
                else ""
            )
            sys.stderr.write(f"{name}: {done} of {total}{left}\n")
            sys.stderr.flush()
            self._said = now

    def start_cells(self, total: int) -> None:
        self._total = total
        if total and self._bar:
            self.stage("cells", 0, total)

    def finished(self, record: Record) -> None:
        """One more cell has a record; a failure is told at once."""
        self._done += 1
        if record.status == "failed":
            cell = record.cell
            message = f"failed: {cell.method} {cell.dataset} X={cell.shots} draw {cell.draw}: {record.reason}"
            if self._bar:
                self._bar.console.print(message, markup=False, style="red")
            else:
                sys.stderr.write(message + "\n")
        self.stage("cells", self._done, self._total)
