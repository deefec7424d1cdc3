"""A process and all that it started: found, measured, killed. Where there is no /proc, a process with its group."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

PROC = Path("/proc")
DEATH_SIGNAL, SUBREAPER = 1, 36  # prctl's numbers of PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER
HELD = ("RssAnon:", "RssShmem:", "VmSwap:")  # in status
SHARE = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")  # in smaps_rollup: of shared pages the process's part
PATIENCE = 5.0  # seconds in which a killed process must have gone


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent, the process ``parent``, ends, whatever it is doing then."""
    _prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # which has ended before the call above
        os._exit(1)


def adopt_orphans() -> None:
    """Have what this process's descendants leave behind become its own children, so that `descendants` finds it."""
    _prctl(SUBREAPER, 1)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and what they have started."""
    found, left = [], [pid]
    while left:
        for file in (PROC / str(left.pop()) / "task").glob("*/children"):
            with suppress(OSError):  # it has ended
                children = [int(child) for child in file.read_text().split()]
                found += children
                left += children
    return found


def measurable() -> bool:
    """Whether `held` can measure processes here."""
    return (PROC / "self" / "smaps_rollup").is_file()


def held(pids: Iterable[int], enough: int) -> int:
    """Bytes that processes hold beside files. Where it is clear that they hold at most ``enough``, an upper bound.

    Anonymous and shared memory, also where it is swapped. Pages that several processes share, as after a fork, are
    divided among them. Pages of mapped files are left out: the kernel takes them back when it needs them.
    """
    pids = list(pids)
    bound = sum(_bytes(pid, "status", HELD) for pid in pids)
    if bound <= enough:
        return bound
    return sum(_bytes(pid, "smaps_rollup", SHARE) or _bytes(pid, "status", HELD) for pid in pids)


def ended(process: BaseProcess, within: float) -> int | None:
    """The exit code of a child that ends within so many seconds. Its sentinel may lie: files were closed, or kept."""
    deadline = time.monotonic() + within
    while process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process.exitcode


def kill(process: BaseProcess) -> None:
    """Kill a child, its group, and all that is below this process: what the child started, and what that left."""
    with suppress(OSError):  # it has no group of its own yet, or has ended
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()
    deadline = time.monotonic() + PATIENCE
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with suppress(OSError):  # not a child of this process, but of one that has been killed: comes up next time
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)


def _bytes(pid: int, file: str, names: tuple[str, ...]) -> int:
    """The sum of some lines of a file of /proc; 0 where the process has ended."""
    with suppress(OSError):
        lines = (PROC / str(pid) / file).read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(names))
    return 0


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
