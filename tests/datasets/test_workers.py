"""Pictures prepared by forked processes: Ctrl-C at the worst moment."""

import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal
import numpy as np
from xshot_bench.datasets.workers import ahead

class Prepare:
    views = (0,)
    def __call__(self, rows):
        return np.zeros((len(rows), 1, 3, 2, 2), np.uint8)

os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
try:
    list(ahead(Prepare(), [range(4)], turns=False, workers=1))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_ctrl_c_in_a_callback_around_a_fork_is_not_swallowed():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "interrupted\n"
    assert "ignored" not in done.stderr
