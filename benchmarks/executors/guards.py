"""Guardians: each runs tasks in a child of its own, and kills it with all that it started where that must be.

    the run ── nursery ─┬─ guardian ── child, where methods run ── what they start
                        └─ guardian ── child …

The nursery imports what cells need, once, and forks the guardians, so that a child costs milliseconds. A guardian runs
nothing of a method, so it keeps limits whatever the child does. It ends its child when the run ends, however that ends.

Only these processes talk with each other, by pickles through pipes that nobody else can open.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from xshot_bench.benchmarks.executors import trees
from xshot_bench.benchmarks.executors.limits import Limits
from xshot_bench.benchmarks.executors.threads import one_thread

FORKS = sys.platform == "linux"  # elsewhere libraries do not take it well
CONTEXT = get_context("fork") if FORKS else get_context("spawn")
INTERRUPTS = signal.SIGINT, signal.SIGTERM
LOOK = 0.1  # seconds between looks at a child under limits
GENTLY = 2.0  # seconds that an idle child has to end by itself


@dataclass(frozen=True)
class Lost:
    """A task that returned nothing, and why. killed: from outside, so that it may have been innocent."""

    reason: str
    killed: bool = False


GONE = Lost("its process was killed with the one that watched it", killed=True)  # where a guardian has ended
Task = Callable[[], object]  # picklable, as is what it returns


@contextmanager
def guardians(count: int, limits: Limits) -> Iterator[list[Connection]]:
    """A pipe to each of ``count`` guardians: `ask` one, then wait for its `answer`."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    nursery = context.Process(target=_nurse, args=([end for _, end in pipes], limits))
    with _uninterrupted():
        nursery.start()
    for _, end in pipes:
        end.close()
    try:
        yield [pipe for pipe, _ in pipes]
    finally:
        for pipe, _ in pipes:
            pipe.close()
        nursery.join()


def ask(pipe: Connection, task: Task, cells: int) -> None:
    """Give an idle guardian a task that takes as long as so many cells may. OSError where the guardian has ended."""
    pipe.send((cells, pickle.dumps(task)))


def answer(pipe: Connection) -> bytes:
    """What a task returned, or a `Lost`, pickled; EOFError or OSError where the guardian has ended."""
    return pipe.recv_bytes()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started here gets no Ctrl-C before it has come so far as to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would end what follows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nurse(ends: Sequence[Connection], limits: Limits) -> None:
    for number in INTERRUPTS:  # they come to the whole group; the run ends the guardians
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    from xshot_bench.benchmarks import run  # noqa: F401 - for the children
    from xshot_bench.benchmarks.provenance import provenance

    one_thread()
    provenance("cpu")  # found out once for all
    started = [
        CONTEXT.Process(target=_guard, args=(end, limits, _inherited(other for other in ends if other is not end)))
        for end in ends
    ]
    for process in started:
        process.start()
    for end in ends:
        end.close()
    for process in started:
        process.join()
    os._exit(0)  # nothing is left to do; to take the libraries down would hold up the run's end


def _guard(pipe: Connection, limits: Limits, inherited: Sequence[int]) -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    for descriptor in inherited:
        os.close(descriptor)
    trees.adopt_orphans()
    guardian = _Guardian(pipe, limits)
    try:
        while True:
            pipe.send_bytes(guardian.outcome(*pipe.recv()))
    except (EOFError, OSError):  # the run has ended, or needs this guardian no longer
        guardian.dismiss()


class _Guardian:
    def __init__(self, pipe: Connection, limits: Limits) -> None:
        self.pipe, self.limits = pipe, limits
        self.child: _Child | None = None

    def outcome(self, cells: int, task: bytes) -> bytes:
        """What a task returns, or a `Lost`, pickled. What goes wrong in a used child is tried again in a fresh one."""
        while True:
            fresh = self.child is None
            self.child = self.child or _Child(self.pipe)
            found = self._outcome(self.child, cells, task)
            if isinstance(found, bytes):
                return found
            self.end()
            if fresh or found.killed:
                return pickle.dumps(found)

    def dismiss(self) -> None:
        """End a child that has no job."""
        if self.child:
            self.child.pipe.close()
            trees.ended(self.child.process, GENTLY)
        self.end()

    def end(self) -> None:
        """Kill the child, whatever it does, and all that it started."""
        if self.child:
            self.child.pipe.close()
            trees.kill(self.child.process)
            self.child = None

    def _outcome(self, child: _Child, cells: int, task: bytes) -> bytes | Lost:
        started = time.monotonic()
        with suppress(OSError):  # it has ended meanwhile
            child.pipe.send_bytes(task)
        while True:
            ready = wait([child.pipe, self.pipe], LOOK if self.limits else 1.0)
            if self.pipe in ready:  # nothing is sent while a job runs: it is closed
                self.end()
                raise EOFError
            if child.pipe in ready:
                try:
                    clean, found = child.pipe.recv()
                except (EOFError, OSError):
                    return child.ended()
                if not clean or trees.descendants(os.getpid()) not in ([], [child.pid]):
                    self.end()  # threads or processes that the job left would disturb the next
                return found
            if not child.process.is_alive():
                return child.ended()
            if reason := self._exceeded(time.monotonic() - started, cells):
                return Lost(reason)

    def _exceeded(self, seconds: float, cells: int) -> str:
        limits = self.limits
        if limits.seconds is not None and seconds > limits.seconds * cells:
            return f"took longer than --cell-timeout {limits.seconds:g} s"
        if limits.memory is not None and trees.held(trees.descendants(os.getpid()), limits.memory) > limits.memory:
            return f"used more than --cell-memory {limits.memory / 1e9:g} GB"
        return ""


class _Child:
    """A process in a session of its own that runs jobs one after another."""

    def __init__(self, guardians_pipe: Connection) -> None:
        self.pipe, end = CONTEXT.Pipe()
        inherited = _inherited([self.pipe, guardians_pipe])
        self.process = CONTEXT.Process(target=_work, args=(end, os.getpid(), inherited))
        self.process.start()
        self.pid = self.process.pid or 0
        end.close()

    def ended(self) -> Lost:
        """Why it did."""
        code = trees.ended(self.process, within=1.0)
        if code is None:
            return Lost("its process does not answer any more")
        if code >= 0:
            return Lost(f"its process ended itself (exit code {code})")
        name = signal.Signals(-code).name
        if -code in (signal.SIGKILL, signal.SIGTERM):
            return Lost(f"its process was killed ({name}: the machine's memory is full, or somebody did it)", True)
        return Lost(f"its process was killed ({name})")


def _work(pipe: Connection, guardian: int, inherited: Sequence[int]) -> None:
    for descriptor in inherited:
        os.close(descriptor)
    os.setsid()
    trees.die_with_parent(guardian)
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_DFL)
    with suppress(OSError):  # what methods print is no part of the table
        os.dup2(2, 1)
    with suppress(OSError):  # where memory runs out, the kernel takes a cell, which can be run again
        Path("/proc/self/oom_score_adj").write_text("1000")
    one_thread()
    threads = threading.active_count()
    with suppress(EOFError, OSError):  # the guardian wants no more
        while True:
            found = _results(pipe.recv_bytes())
            pipe.send((threading.active_count() <= threads, found))


def _results(task: bytes) -> bytes:
    from xshot_bench.benchmarks.run import one_line

    try:
        return pickle.dumps(pickle.loads(task)())  # noqa: S301 - from the run itself
    except BaseException as error:  # what no method should raise, or what results cannot hold
        return pickle.dumps(Lost(one_line(error)))


def _inherited(pipes: Iterator[Connection] | Sequence[Connection]) -> list[int]:
    """What a forked process has of pipes that are not its own; it must close them, so that their ends are noticed."""
    return [pipe.fileno() for pipe in pipes] if FORKS else []
