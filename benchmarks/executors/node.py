"""What a node of a Ray cluster does with a job.

Ray's worker hands it to a guardian of its own, kept between jobs: by that a method that ends its process is told from a
lost node, and limits are kept. Jobs and results travel as bytes, so that Ray's worker imports little.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xshot_bench import InputError
from xshot_bench.benchmarks.executors.limits import Limits

if TYPE_CHECKING:
    from xshot_bench.benchmarks.run import Job

_kept = ExitStack()
ROOT = Path(__file__).resolve().parents[2]
SHARED = ("split", "encoder")  # of a job: large, and the same in many


class Outcome(NamedTuple):
    """What came of a job: its results, pickled, or None.

    unfit: why this node cannot run it. lost: why there are no results of it; ``killed`` from outside.
    """

    results: bytes | None = None
    unfit: str = ""
    lost: str = ""
    killed: bool = False


def packed(job: Job) -> tuple[bytes, bytes]:
    """A job as bytes: it without what many jobs share, and that."""
    nothing: dict[str, Any] = dict.fromkeys(SHARED)
    own = replace(job, setup=replace(job.setup, features=job.setup.features.absolute(), **nothing))
    return pickle.dumps(own), pickle.dumps({name: getattr(job.setup, name) for name in SHARED})


def serve(own: bytes, shared: bytes, cells: int, limits: Limits, expected: dict[str, str]) -> tuple[Any, ...]:
    """Run a job of so many cells under this worker's guardian; an `Outcome`, as a plain tuple."""
    from xshot_bench.benchmarks.executors.guards import GONE, Lost, answer, ask

    found: Any = GONE
    for _ in range(2):  # somebody may have killed the guardian
        pipe = _guardian(limits, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        try:
            ask(pipe, partial(compute, own, shared, expected), cells)
            found = pickle.loads(answer(pipe))  # noqa: S301 - from the guardian
        except (EOFError, OSError):
            _guardian.cache_clear()
        else:
            break
    return tuple(Outcome(lost=found.reason, killed=found.killed) if isinstance(found, Lost) else Outcome(*found))


def compute(own: bytes, shared: bytes, expected: dict[str, str]) -> tuple[Any, ...]:
    """Run a job in this process, if the node has what it needs; an `Outcome`, as a plain tuple."""
    from xshot_bench.benchmarks.run import run_job

    try:
        job: Job = pickle.loads(own)  # noqa: S301 - by the program that started us
        job = replace(job, setup=replace(job.setup, **_shared(shared)))
        _check_installation(expected)
        _check(job)
    except InputError as error:
        return tuple(Outcome(unfit=str(error)))
    return tuple(Outcome(pickle.dumps(run_job(job))))


def _check_installation(expected: dict[str, str]) -> None:
    for name, version in expected.items():
        if installation().get(name) != version:
            there = installation().get(name, "none")
            raise InputError(
                f"node {socket.gethostname()} has {name} {there}, where the run was started it is {version}. "
                "Every node needs the same, or its numbers would be others."
            )


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
    host, shared, setup = socket.gethostname(), "a file system that all nodes share", job.setup
    for place in (setup.features, *setup.options.extras(setup.features).values()):
        if not place.exists():
            raise InputError(f"node {host} does not see the features {place}. Give a --cache on {shared}.")
    for plugin in setup.plugins:
        if not plugin.is_file():
            raise InputError(f"node {host} does not see the plugin {plugin}. Put it on {shared}.")
    method = setup.variant.plugin
    if any(cell.code != _code(method, setup.plugins) for cell in job.cells):
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
def _guardian(limits: Limits, gpus: str) -> Connection:
    """The pipe to a guardian whose child sees the GPUs that Ray gave to its worker: for others another is started.

    It ends when its pipe is closed: with this process, or when another takes its place.
    """
    from xshot_bench.benchmarks.executors.guards import guardians

    _kept.close()
    (pipe,) = _kept.enter_context(guardians(1, limits))
    return pipe
