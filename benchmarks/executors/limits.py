"""What a cell may take of the machine. The limits are hard: its process is killed with all that it started."""

from __future__ import annotations

from dataclasses import dataclass

from xshot_bench import InputError
from xshot_bench.benchmarks.executors.trees import measurable


@dataclass(frozen=True)
class Limits:
    """seconds: of one cell, by the clock; n cells that are trained together may take n times as long. memory: bytes.

    Memory is what the cell's process and all that it started hold beside files: of what several processes share each
    counts its part, and memory-mapped features do not count. It is looked at ten times a second.
    """

    seconds: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and not measurable():
            raise InputError("--cell-memory needs Linux's /proc to measure processes; without it runs everywhere.")

    def __bool__(self) -> bool:
        return self.seconds is not None or self.memory is not None


NO_LIMITS = Limits()
