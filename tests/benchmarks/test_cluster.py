"""Cells on a real Ray cluster: three nodes, each a raylet of its own, that are killed, join late, or lack something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # whether or not this user has a token
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")
psutil = pytest.importorskip("psutil")

from conftest import COLOURS  # noqa: E402

PROGRAM = Path(__file__).resolve().parents[2] / "run_bench.py"
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
SLOW = """
import os, time
from contextlib import suppress
from pathlib import Path
from xshot_bench.methods.base import EmbeddingMethod, Resources

class Slow(EmbeddingMethod):
    '''Says where it runs, and takes its time.'''
    resources = Resources(memory=1 << 20)
    def fit(self, task):
        with Path(__file__).with_name("log").open("a") as log:
            log.write(f"{os.environ.get('RAY_RAYLET_PID', 0)} {os.getpid()} {task.shots}/{task.seed}\\n")
        with suppress(OSError):  # one cell hangs, on another node than the test says
            hang = Path(__file__).with_name("hang")
            if os.environ.get("RAY_RAYLET_PID") not in (None, hang.read_text()):
                hang.rename(hang.with_name(f"hangs on {os.environ.get('RAY_RAYLET_PID')}"))
                time.sleep(600)
        time.sleep(1)
    def embed(self, x, modality):
        return x
"""


class Grid:
    """Twelve slow cells and their baseline's, in a folder of their own."""

    def __init__(self, folder: Path, data: Path, method: str = SLOW) -> None:
        self.folder, self.data = folder, data
        self.plugin = folder / "slow.py"
        self.plugin.write_text(method)
        self.cells = folder / "results" / "cells"

    def arguments(self, *more: str) -> list[str]:
        return ["--methods", "slow,clip", "--shots", "1,2", "--draws", "6", "--datasets", "manifest", "--root",
                str(self.data), "--encoder", "colours", "--mlflow-uri", "none", "--plugin", str(COLOURS), "--plugin",
                str(self.plugin), "--format", "json", "--results", str(self.folder / "results"), "--cache",
                str(self.folder / "cache"), "--device", "cpu", *more]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *self.arguments(*more)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def run(self, *more: str) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, the table's rows without times, and what was said."""
        return ended(self.start(*more))

    def log(self) -> list[tuple[int, int, str]]:
        """What slow cells said as they began: the raylet, the process, X and draw."""
        path = self.folder / "log"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [(int(raylet), int(pid), cell) for raylet, pid, cell in map(str.split, lines)]


def ended(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=150)
    rows = json.loads(out)["rows"] if out else []
    return process.returncode, [{k: v for k, v in row.items() if k != "seconds"} for row in rows], err


def until(happened: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def three_nodes(cluster: Any) -> Any:
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(**NODE)
    return cluster


@pytest.fixture(scope="module")
def undisturbed(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The grid's table, from one process without a break."""
    quick = SLOW.replace("time.sleep(1)", "")
    code, rows, err = Grid(tmp_path_factory.mktemp("undisturbed"), colour_folder, quick).run("--jobs", "1")
    assert code == 0, err
    assert [row["draws"] for row in rows] == [6] * 4
    return rows


@pytest.fixture
def grid(tmp_path: Path, colour_folder: Path) -> Grid:
    return Grid(tmp_path, colour_folder)


def raylet(node: Any) -> int:
    (process,) = node.all_processes["raylet"]
    return int(process.process.pid)


@pytest.mark.slow
def test_every_executor_gives_the_same_records(bench, three_nodes, tmp_path):
    found = {}
    for name, placed in {
        "here": ("--jobs", "1"),
        "processes": ("--jobs", "2"),
        "ray": ("--executor", "ray", "--address", three_nodes.address),
        "ray, one at once": ("--executor", "ray", "--address", three_nodes.address, "--jobs", "1"),
    }.items():
        results = tmp_path / name
        called = bench(
            "--methods", "clip,prototype,tip_adapter,clap,random,flexclip", "--set", "flexclip.steps=5",
            "--shots", "0,2", "--draws", "2", "--device", "cpu", "--results", str(results), *placed,
        )  # fmt: skip
        assert called.code == 0, called.err
        assert "ray" not in called.out.lower() and len(called.err.splitlines()) < 20
        records = [json.loads(path.read_text()) for path in sorted(results.glob("cells/*.json"))]
        for record in records:
            del record["seconds"], record["provenance"]
        found[name] = {path.name for path in results.glob("cells/*.parquet")}, records
    assert len(found["here"][1]) == 24
    assert all(one == found["here"] for one in found.values())


@pytest.mark.slow
def test_a_node_that_is_killed_in_mid_run_changes_nothing(three_nodes, grid, undisturbed):
    (grid.folder / "hang").write_text(str(raylet(three_nodes.head_node)))
    process = grid.start("--executor", "ray", "--address", three_nodes.address)
    hangs = until(lambda: next(grid.folder.glob("hangs on *"), None))
    until(lambda: len(list(grid.cells.glob("*.json"))) >= 2)
    workers = {raylet(node): node for node in three_nodes.worker_nodes}
    doomed = int(hangs.name.split()[-1])
    hung = [cell for where, _, cell in grid.log() if where == doomed][-1]
    for one in (*psutil.Process(doomed).children(recursive=True), psutil.Process(doomed)):
        one.kill()
    code, rows, err = ended(process)
    assert code == 0, err
    assert rows == undisturbed
    assert err.count("was lost: its cells run again elsewhere") == 1
    first, second = (where for where, _, cell in grid.log() if cell == hung)
    assert first == doomed != second
    three_nodes.remove_node(workers[doomed], allow_graceful=False)


@pytest.mark.slow
def test_a_node_that_joins_in_mid_run_is_used(three_nodes, grid, undisturbed):
    process = grid.start("--executor", "ray", "--address", three_nodes.address)
    until(grid.log)
    node = three_nodes.add_node(**NODE)
    code, rows, err = ended(process)
    assert code == 0, err
    assert rows == undisturbed
    assert raylet(node) in {raylet for raylet, _, _ in grid.log()}
    three_nodes.remove_node(node)


@pytest.mark.slow
def test_a_method_that_kills_its_process_or_its_node_s_worker_fails_alone(three_nodes, grid):
    worker = "__import__('psutil').Process().parents()[2].pid"  # between are the guardian and the nursery
    deadly = f"os.kill(os.getpid() if task.seed == 1 else {worker}, 9) if task.seed in (1, 2) else None"
    grid.plugin.write_text(SLOW.replace("time.sleep(1)", deadly))
    code, rows, err = grid.run("--executor", "ray", "--address", three_nodes.address, "--shots", "1")
    assert code == 1, err
    table = {row["method"]: row for row in rows}
    assert (table["clip"]["draws"], table["slow"]["draws"], table["slow"]["failed"]) == (6, 4, 2)
    reasons = {record["cell"]["draw"]: record["reason"] for path in grid.cells.glob("*.json")
               if (record := json.loads(path.read_text()))["status"] == "failed"}  # fmt: skip
    assert "was killed" in reasons[1] and "node that ran it was lost" in reasons[2]
    tries = [cell for _, _, cell in grid.log()]
    assert [tries.count(f"1/{draw}") for draw in range(6)] == [1, 2, 4, 1, 1, 1]


@pytest.mark.slow
def test_limits_are_kept_on_every_node(three_nodes, grid):
    grid.plugin.write_text(SLOW.replace("time.sleep(1)", "time.sleep(600 if task.seed == 1 else 0)"))
    code, rows, err = grid.run("--executor", "ray", "--address", three_nodes.address, "--cell-timeout", "15")
    assert code == 1, err
    assert [(row["method"], row["draws"], row["failed"]) for row in rows] == [("slow", 5, 1), ("clip", 6, 0)] * 2
    assert err.count("took longer than --cell-timeout 15 s") == 2
    until(lambda: not any(psutil.pid_exists(pid) for _, pid, cell in grid.log() if cell.endswith("/1")), 20)


@pytest.mark.slow
@pytest.mark.parametrize(("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_what_an_interrupted_run_stored_is_gone_on_from_by_any_executor(three_nodes, grid, undisturbed, blow, code):
    process = grid.start("--executor", "ray", "--address", three_nodes.address)
    until(lambda: len(list(grid.cells.glob("*.json"))) >= 3)
    process.send_signal(blow)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    until(lambda: not any(psutil.pid_exists(pid) for _, pid, _ in grid.log()), 20)
    kept = {path.name: path.read_bytes() for path in grid.cells.glob("*.json")}
    assert 3 <= len(kept) < 24

    begun = len(grid.log())
    code, rows, err = grid.run("--jobs", "2") if blow != signal.SIGKILL else grid.run("--executor", "ray")
    assert code == 0, err
    assert rows == undisturbed
    assert all((grid.cells / name).read_bytes() == content for name, content in kept.items())
    done = sum(json.loads(content)["cell"]["method"] == "slow" for content in kept.values())
    assert len(grid.log()) - begun == 12 - done


@contextmanager
def node_without(cache: Path, cluster: Any) -> Iterator[None]:
    """A node that has a file system of its own over the cache's folder, as where it is not shared."""
    cache.mkdir(exist_ok=True)
    hidden = f"mount -t tmpfs none {cache} && exec {sys.executable} -m ray.scripts.scripts start --block"
    hidden += f" --address {cluster.address} --num-cpus 1 --object-store-memory {100 << 20} --disable-usage-stats"
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(cache)], check=False).returncode:
        pytest.skip("this system lets us mount nothing")
    before = _living(cluster)
    node = subprocess.Popen(["unshare", "-m", "sh", "-c", hidden], start_new_session=True, stdout=subprocess.PIPE)
    try:
        until(lambda: _living(cluster) > before)
        yield
    finally:
        for one in (*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)):
            one.kill()
        node.wait()
    until(lambda: _living(cluster) == before)


def _living(cluster: Any) -> int:
    return sum(node["Alive"] for node in cluster.global_state.node_table())


@pytest.mark.slow
def test_a_node_without_the_cache_is_told_once(cluster, grid):
    with node_without(grid.folder / "cache", cluster):
        code, rows, err = grid.run("--executor", "ray", "--address", cluster.address)
    assert (code, rows) == (2, [])
    assert err.count("does not see the features") == 1 and "a file system that all nodes share" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_node_that_joins_in_mid_run_without_the_cache_is_left_out(three_nodes, grid, undisturbed):
    grid.plugin.write_text(SLOW.replace("time.sleep(1)", "time.sleep(4)"))
    process = grid.start("--executor", "ray", "--address", three_nodes.address)
    until(grid.log)
    with node_without(grid.folder / "cache", three_nodes):
        code, rows, err = ended(process)
    assert code == 0, err
    assert rows == undisturbed
    assert err.count("It joined later, and is left out.") == err.count("does not see the features") == 1


@contextmanager
def planned(grid: Grid, address: str) -> Iterator[Callable[[], Any]]:
    """The grid's jobs planned in this process; what it gives runs them on the cluster."""
    from xshot_bench.benchmarks.executors import execute, ready
    from xshot_bench.benchmarks.invocation import Invocation
    from xshot_bench.benchmarks.plan import encode_missing
    from xshot_bench.run_bench import cli

    arguments = grid.arguments("--executor", "ray", "--address", address)
    call = Invocation.from_options(cli.make_context("test", arguments).params)
    plan = call.plan()
    encode_missing(plan, call.inputs, lambda *_: None)
    with ready(call.placement, plan.jobs):
        yield lambda: list(execute(plan.jobs, call.placement))


@pytest.mark.slow
def test_a_node_with_other_code_or_packages_computes_nothing(three_nodes, grid, monkeypatch):
    from xshot_bench import InputError
    from xshot_bench.benchmarks.executors import node

    with planned(grid, three_nodes.address) as run:
        grid.plugin.write_text(SLOW.replace("return x", "return 2 * x"))
        with pytest.raises(InputError, match="has other code of the method 'slow' than the run was planned with"):
            run()
    here = node.installation()
    with planned(grid, three_nodes.address) as run:
        monkeypatch.setattr(node, "installation", lambda: here | {"torch": "1.0"})
        with pytest.raises(InputError, match=f"has torch {here['torch'].split('+')[0]}.*, where the run was .* 1.0"):
            run()
    monkeypatch.setattr(node, "installation", lambda: here)
    with planned(grid, three_nodes.address) as run:
        grid.plugin.unlink()
        with pytest.raises(InputError, match="does not see the plugin"):
            run()
    assert not grid.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            "Resources(memory=1 << 60)",
            "no node of the Ray cluster has what the method 'slow' asks for: num_cpus=1, mem",
        ),
        ("Resources(num_cpus=-1)", "the method 'slow' declares resources that Ray does not take"),
        ("4", "the method 'slow' declares resources that Ray does not take"),
    ],
)
def test_resources_that_no_node_has_are_told(cluster, grid, resources, message):
    grid.plugin.write_text(SLOW.replace("Resources(memory=1 << 20)", resources))
    code, rows, err = grid.run("--executor", "ray", "--address", cluster.address)
    assert (code, rows) == (2, []) and message in err and "Traceback" not in err
    assert not (grid.folder / "results").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "refused"),
        ("ray://127.0.0.1:10001", "expected auto or HOST:PORT"),
        ("local", "expected auto or HOST:PORT"),
        ("nowhere.invalid:6379", "nowhere.invalid:6379"),
    ],
)
def test_no_cluster_at_the_address_is_one_message(bench, tmp_path, address, reason):
    called = bench("--methods", "clip", "--shots", "1", "--draws", "1", "--executor", "ray", "--address", address)
    assert called.code == 2 and not called.out
    assert "there is no Ray cluster to be used at --address" in called.err and reason in called.err
    assert len(called.err.splitlines()) <= 4 and not (tmp_path / "results").exists()


def test_without_ray_it_says_what_to_install(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    called = bench("--methods", "clip", "--shots", "1", "--draws", "1", "--executor", "ray")
    assert called.code == 2 and "Install it with the extra" in called.err


def test_a_dry_run_asks_no_cluster_and_a_done_run_needs_none(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ask = ("--methods", "clip", "--shots", "1", "--draws", "2")
    assert "2 to compute" in bench(*ask, "--executor", "ray", "--dry-run").out
    assert bench(*ask).code == 0
    assert bench(*ask, "--executor", "ray").code == 0
