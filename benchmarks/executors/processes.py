"""Cells in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from xshot_bench.benchmarks.executors.threads import one_thread
from xshot_bench.benchmarks.records import Result
from xshot_bench.benchmarks.run import Job, lost, run_job


def execute(jobs: Sequence[Job], workers: int) -> Generator[Result, None, None]:
    """Results as they come. A job whose process dies is tried once more alone, then its cells have failed."""
    try:
        suspects = yield from _in_pool(jobs, workers)
        for job in suspects:  # one of them killed its process; alone, the innocent come through
            for guilty in (yield from _in_pool([job], 1)):
                yield from lost(guilty)
    except BaseException:
        for child in multiprocessing.active_children():
            child.kill()
        raise


def _in_pool(jobs: Sequence[Job], workers: int) -> Generator[Result, None, list[Job]]:
    """Run the jobs in fresh processes; the generator's value is the jobs that were running when a process died."""
    waiting, suspects = list(reversed(jobs)), []
    while waiting:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            running: dict[Future[list[Result]], Job] = {}
            broken = False
            while running or (waiting and not broken):
                while waiting and not broken and len(running) < workers:
                    job = waiting.pop()
                    try:
                        running[pool.submit(run_job, job)] = job
                    except BrokenProcessPool:
                        waiting.append(job)
                        broken = True
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    job = running.pop(future)
                    try:
                        results = future.result()
                    except BrokenProcessPool:
                        suspects.append(job)
                        broken = True
                    else:
                        yield from results
    return suspects


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    one_thread()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
