"""Cells on a Ray cluster. Nodes compute; this process alone sends jobs out, and gets their results.

A job that is lost with its node is sent to another one. Few are sent ahead of those that run, so nodes that come
later get their share.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import socket
import time
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from xshot_bench import InputError
from xshot_bench.benchmarks.executors import node
from xshot_bench.benchmarks.executors.limits import NO_LIMITS, Limits
from xshot_bench.benchmarks.records import Result
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import Job, lost
from xshot_bench.methods.base import Method, Resources

logger = logging.getLogger(__name__)

AHEAD = 2  # jobs that are sent out for each core: one runs, one waits for it
EVERY = 5.0  # seconds between looks at what nodes there are
RETRIES = 3  # times that a job may be lost with its node; once more, and it counts as what kills them
WITHIN = 10.0  # seconds in which an address answers


@contextmanager
def connected(address: str, jobs: Sequence[Job]) -> Iterator[None]:
    """A connection to the cluster. `InputError` where there is none, or no node has what the jobs ask for."""
    ray = _ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    try:
        _answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"there is no Ray cluster to be used at --address {address}: {reason} "
            "Start one with `ray start --head`, and this program on one of its machines (docs/cluster.md)."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):  # where Ray tells what happens to nodes
        try:
            _check_demands(jobs)
            yield
        finally:
            ray.shutdown()


def execute(jobs: Sequence[Job], most: int = 0, limits: Limits = NO_LIMITS) -> Generator[Result, None, None]:
    """Results as they come, of ``most`` jobs at once (0: of as many as there is room for).

    A job has failed that breaks its process or a limit, or is killed twice, or lost with a node more than `RETRIES`
    times; cells that are trained together are then tried one by one. A node that lacks something or has other code is
    an `InputError`, or left out if it joined later.
    """
    yield from _Run(jobs, most, limits).results()


class _Run:
    """The jobs that wait, and those that are out."""

    def __init__(self, jobs: Sequence[Job], most: int, limits: Limits) -> None:
        self._ray, self._task, self._sender, self._room = _ray(), _task(), _Sender(limits), _Room(most)
        self._waiting = deque(_Sent(job) for job in jobs)
        self._out: dict[Any, _Sent] = {}
        self._at_first, self._told = _nodes().keys(), False

    def results(self) -> Iterator[Result]:
        while self._waiting or self._out:
            while self._waiting and len(self._out) < self._room.now():
                sent = self._waiting.popleft()
                task = self._task.options(**_demand(sent.job), **self._room.where())
                reference = task.remote(*self._sender.arguments(sent.job))
                self._out[reference] = sent
            done, _ = self._ray.wait(list(self._out), timeout=EVERY)
            if done:  # with all others that are
                done, _ = self._ray.wait(list(self._out), num_returns=len(self._out), timeout=0)
            else:
                self._room.complain([sent.job for sent in self._out.values()])
            for reference in done:
                yield from self._results(reference, self._out.pop(reference))

    def _results(self, reference: Any, sent: _Sent) -> Iterator[Result]:
        try:
            where, found = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # as results that cannot be pickled
            yield from lost(sent.job, f"its results did not come: {error.cause}".partition("\n")[0])
            return
        except self._ray.exceptions.RayError as error:
            yield from self._lost(sent, type(error).__name__)
            return
        outcome = node.Outcome(*found)
        if outcome.unfit and where in self._at_first:
            raise InputError(f"{outcome.unfit} Results that were stored are kept.")
        if outcome.unfit:
            self._room.leave_out(where, outcome.unfit)
            self._waiting.appendleft(sent)
        elif outcome.results is not None:
            yield from pickle.loads(outcome.results)  # noqa: S301 - by our own code on a node of the user's
        elif len(sent.job) > 1:
            self._waiting.extendleft(_Sent(replace(sent.job, cells=(cell,))) for cell in reversed(sent.job.cells))
        elif outcome.killed and not sent.killed:
            sent.killed = True
            self._waiting.append(sent)
        else:
            yield from lost(sent.job, outcome.lost)

    def _lost(self, sent: _Sent, how: str) -> Iterator[Result]:
        """With its node: it goes out again, first of all."""
        if not self._told:
            self._told = True
            logger.warning("a node of the Ray cluster, or Ray's worker there, was lost: its cells run again elsewhere")
        sent.lost += 1
        if sent.lost > RETRIES:
            yield from lost(sent.job, f"the node that ran it was lost, {sent.lost} times ({how})")
        else:
            self._waiting.appendleft(sent)


@dataclass
class _Sent:
    """A job, how often it was lost with a node, and whether its process was killed from outside."""

    job: Job
    lost: int = 0
    killed: bool = False


def _check_demands(jobs: Sequence[Job]) -> None:
    task, nodes = _task(), _nodes().values()
    for method, job in {job.setup.variant.plugin: job for job in jobs}.items():
        try:
            demand = _demand(job)
            task.options(**demand)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"the method {method!r} declares resources that Ray does not take: {error}") from None
        if not _fits(demand, nodes):
            asked = ", ".join(f"{name}={amount:g}" for name, amount in demand.items())
            raise InputError(f"no node of the Ray cluster has what the method {method!r} asks for: {asked}.")


def _task() -> Any:
    """The remote function. Being local it travels as code, so it finds the package where that is not installed.

    It returns the node's id, and an `Outcome`.
    """

    def on_node(root: str, own: bytes, shared: bytes, *others: Any) -> Any:
        import importlib.util
        import runpy
        import sys
        from pathlib import Path

        import ray

        where = ray.get_runtime_context().get_node_id()
        if "xshot_bench" not in sys.modules:
            program = Path(root, "run_bench.py")
            if not program.is_file():
                found = importlib.util.find_spec("xshot_bench")
                if found is None or found.origin is None:
                    import socket

                    host = socket.gethostname()
                    return where, (None, f"node {host} has no xshot_bench: neither {root} nor installed.")
                program = Path(found.origin).with_name("run_bench.py")
            runpy.run_path(str(program), run_name="__mp_main__")  # which binds the package to its folder
            sys.modules["__main__"].__file__ = str(program)  # so processes that are started from here do as well
        from xshot_bench.benchmarks.executors import node

        return where, node.serve(own, shared, *others)

    return _ray().remote(max_retries=0)(on_node)  # it is sent again by us, so that we can tell


class _Sender:
    """Makes a task's arguments; what many jobs share is put into the cluster once."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._expected = limits, _ray().put(node.installation())
        self._shared: dict[bytes, Any] = {}

    def arguments(self, job: Job) -> tuple[Any, ...]:
        own, shared = node.packed(job)
        if shared not in self._shared:
            self._shared[shared] = _ray().put(shared)
        return str(node.ROOT), own, self._shared[shared], len(job), self._limits, self._expected


class _Room:
    """Where jobs may go, and how many may be out: as many as ``most`` says, or some for each core that there is now."""

    def __init__(self, most: int) -> None:
        self._most, self._cores, self._looked, self._told = most, 0.0, -EVERY, False
        self._left_out: set[str] = set()

    def leave_out(self, where: str, reason: str) -> None:
        """Send no more to that node."""
        if where not in self._left_out:
            self._left_out.add(where)
            logger.warning("%s It joined later, and is left out.", reason)

    def where(self) -> dict[str, Any]:
        """The options of a task that keep it from nodes that are left out."""
        if not self._left_out:
            return {}
        return {"label_selector": {"ray.io/node-id": f"!in({', '.join(sorted(self._left_out))})"}}

    def now(self) -> int:
        if time.monotonic() - self._looked >= EVERY:
            self._cores = sum(node.get("CPU", 0) for node in self._nodes())
            self._looked = time.monotonic()
        return self._most or max(int(AHEAD * self._cores), 1)

    def complain(self, jobs: Iterable[Job]) -> None:
        """Say once that jobs wait for a node that is gone."""
        nodes = self._nodes()
        if not self._told and not any(_fits(_demand(job), nodes) for job in jobs):
            self._told = True
            logger.warning("no node of the Ray cluster is left that could run what is to run: waiting for one to join")

    def _nodes(self) -> list[dict[str, float]]:
        return [has for where, has in _nodes().items() if where not in self._left_out]


def _nodes() -> dict[str, dict[str, float]]:
    """What each living node has, by its id."""
    return {node["NodeID"]: node["Resources"] for node in _ray().nodes() if node["Alive"]}


def _fits(demand: dict[str, float], nodes: Collection[dict[str, float]]) -> bool:
    keys = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return any(all(node.get(keys[name], 0) >= amount for name, amount in demand.items()) for node in nodes)


def _demand(job: Job) -> dict[str, float]:
    """What Ray is to keep free for a job."""
    needs = _resources(job.setup.variant.plugin, job.setup.plugins)
    demand = {"num_cpus": needs.num_cpus, "memory": needs.memory}
    return demand | ({"num_gpus": needs.num_gpus} if job.setup.device.startswith("cuda") else {})


@lru_cache
def _resources(method: str, plugins: tuple[Path, ...]) -> Resources:
    return cast("type[Method]", Registry(plugins).load("method", method)).resources


def _answers(address: str) -> None:
    """Raise unless the address is one that we take, and something answers there; Ray itself would try for minutes."""
    if address == "auto":
        return
    host, port = address.rpartition(":")[::2]
    if not re.fullmatch(r"\d{1,5}", port) or "/" in host or not host:
        raise ValueError("expected auto or HOST:PORT (Ray Client's ray:// is not taken).")
    if host in ("localhost", "127.0.0.1"):
        host = _ray().util.get_node_ip_address()  # which Ray takes in its place
    socket.create_connection((host, int(port)), WITHIN).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray. Install it with the extra: pip install -e '.[cluster]'") from None
    return ray
