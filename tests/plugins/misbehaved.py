"""A method that does what no method should; ``how`` chooses what. Without it, zero-shot cosine."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import torch
from torch import Tensor

from xshot_bench.methods.base import EmbeddingMethod, Modality, Task

kept: list[object] = []


class Misbehaved(EmbeddingMethod):
    """Zero-shot cosine with a bad habit."""

    how: str = ""

    def fit(self, task: Task) -> None:
        if self.how and hasattr(self, f"_{self.how}"):
            getattr(self, f"_{self.how}")()

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        if self.how == "nan":
            return x * float("nan")
        return x[1:] if self.how == "shape" else x

    def diagnostics(self) -> dict[str, float]:
        return {"what": object()} if self.how == "diagnosis" else {}  # type: ignore[dict-item]

    def _exit(self) -> None:
        os._exit(3)

    def _sysexit(self) -> None:
        sys.exit(3)

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def _segfault(self) -> None:
        ctypes.string_at(0)

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _replace(self) -> None:
        os.execv("/bin/sleep", ["sleep", "1000"])

    def _close(self) -> None:
        os.closerange(3, 1000)

    def _hang(self) -> None:
        """In C, with Python's lock, and deaf to signals."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        re.match(r"(a+)+$", "a" * 64 + "b")

    def _brood(self) -> None:
        """Children of children that ignore signals, one of them a daemon, and then a hang."""
        self._daemon()
        for _ in range(3):
            multiprocessing.get_context("fork").Process(target=self._hang).start()
        time.sleep(1000)

    def _daemon(self) -> None:
        """A process that nobody waits for, in a session of its own."""
        code = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(1000)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def _leave(self) -> None:
        """A daemon, and a thread that would end the process later."""
        self._daemon()
        threading.Thread(target=lambda: (time.sleep(1), os._exit(4)), daemon=True).start()

    def _fill(self) -> None:
        while True:
            kept.append(np.ones(16_000_000))
            time.sleep(0.005)

    def _fill_elsewhere(self) -> None:
        process = multiprocessing.get_context("fork").Process(target=self._fill)
        process.start()
        process.join()

    def _huge(self) -> None:
        kept.append(torch.ones(10**14))

    def _chatter(self) -> None:
        print("[" * 10_000, flush=True)
        os.write(1, b"}" * 10_000)
