"""What processes hold is measured without mapped files, and what they share is counted once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from xshot_bench.benchmarks.executors import trees

MEGABYTE = 2**20
HOLDS = """
import mmap, os, sys, time
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
own = bytearray(os.urandom(2**20) * 60)
shared = mmap.mmap(-1, 30 * 2**20)
shared[:] = b"x" * len(shared)
ready, tell = os.pipe()
child = os.fork()
for pages in (mapped, own, shared):  # both have them
    sum(pages[::4096])
if child:
    os.read(ready, 1)
    print(child, flush=True)
else:
    os.write(tell, b"x")
time.sleep(1000)
"""

pytestmark = pytest.mark.skipif(not trees.measurable(), reason="processes are measured through Linux's /proc")


def test_mapped_files_do_not_count_and_shared_pages_count_once(tmp_path: Path) -> None:
    file = tmp_path / "features"
    file.write_bytes(bytes(100 * MEGABYTE))
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            child = int(process.stdout.readline())
            assert trees.descendants(process.pid) == [child]
            both = [process.pid, child]
            held = trees.held(both, 0) / MEGABYTE
            assert sum(psutil.Process(pid).memory_info().rss for pid in both) > 2 * 190 * MEGABYTE
            assert 90 <= held < 90 + 30  # 60 of its own, 30 shared, and an interpreter
            bound = trees.held(both, 2**40) / MEGABYTE
            assert 2 * 90 <= bound < 2 * (90 + 30)
        finally:
            for one in [process, *psutil.Process(process.pid).children()]:
                one.kill()
