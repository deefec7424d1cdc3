"""What a node of a Ray cluster does with a job.

Ray's worker hands it to one process of its own, kept between jobs: a method that ends its process is told from a lost
node by that. Jobs and results travel as bytes, so that Ray's worker imports little.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xshot_bench import InputError

if TYPE_CHECKING:
    from xshot_bench.benchmarks.run import Job

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("split", "live")  # of a job: large, and the same in many


class Outcome(NamedTuple):
    """What came of a job: its results, as ``compute`` gives them, or None where the process died under it twice.

    unfit: why this node cannot run it.
    """

    results: bytes | None
    unfit: str = ""


def packed(job: Job) -> tuple[bytes, bytes]:
    """A job as bytes: it without what many jobs share, and that."""
    nothing: dict[str, Any] = dict.fromkeys(SHARED)
    own = replace(job, features=job.features.absolute(), **nothing)
    return pickle.dumps(own), pickle.dumps({name: getattr(job, name) for name in SHARED})


def serve(own: bytes, shared: bytes, expected: dict[str, str]) -> Outcome:
    """Run a job in this worker's process. One that dies is started anew, and the job tried once more."""
    for _ in range(2):
        try:
            process = _process(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
            return Outcome(process.submit(compute, own, shared, expected).result())
        except BrokenProcessPool:
            _process.cache_clear()
        except InputError as error:
            return Outcome(None, str(error))
    return Outcome(None)


def compute(own: bytes, shared: bytes, expected: dict[str, str]) -> bytes:
    """The results of a job, pickled. `InputError` where this node lacks something or has other code or packages."""
    from xshot_bench.benchmarks.run import run_job

    for name, version in expected.items():
        if installation().get(name) != version:
            there = installation().get(name, "none")
            raise InputError(
                f"node {socket.gethostname()} has {name} {there}, where the run was started it is {version}. "
                "Every node needs the same, or its numbers would be others."
            )
    job: Job = replace(pickle.loads(own), **_shared(shared))  # noqa: S301 - by the program that started us
    _check(job)
    return pickle.dumps(run_job(job))


@lru_cache(maxsize=1)
def installation() -> dict[str, str]:
    """What must be the same on all nodes: versions of Python and packages, and a digest of our own source files."""
    from xshot_bench.benchmarks.provenance import provenance

    digest = hashlib.sha256()
    for part in ("benchmarks", "methods", "datasets"):
        for path in sorted((ROOT / part).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return provenance("cpu").packages | {"source code of xshot-bench": digest.hexdigest()[:12]}


def _check(job: Job) -> None:
    host, shared = socket.gethostname(), "a file system that all nodes share"
    for place in (job.features, *job.options.extras(job.features).values()):
        if not place.exists():
            raise InputError(f"node {host} does not see the features {place}. Give a --cache on {shared}.")
    for plugin in job.plugins:
        if not plugin.is_file():
            raise InputError(f"node {host} does not see the plugin {plugin}. Put it on {shared}.")
    method = job.variant.plugin
    if any(cell.code != _code(method, job.plugins) for cell in job.cells):
        raise InputError(
            f"node {host} has other code of the method {method!r} than the run was planned with. "
            "Give all nodes the same, change nothing while it runs, and start it again."
        )


@lru_cache
def _code(method: str, plugins: tuple[Path, ...]) -> str:
    from xshot_bench.benchmarks.registry import Registry

    return Registry(plugins).code_digest("method", method)


@lru_cache(maxsize=4)
def _shared(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads(content)  # noqa: S301 - by the program that started us
    return found


@lru_cache(maxsize=1)
def _process(gpus: str) -> ProcessPoolExecutor:
    """The process that computes, and sees the GPUs that Ray gave to its worker: for others another is started."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    from xshot_bench.benchmarks.executors.threads import one_thread

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    one_thread()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
