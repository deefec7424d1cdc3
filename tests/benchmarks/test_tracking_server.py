"""MLflow on a real server that is down, dies, is slow, full or locked: the run ends complete, and sync completes it.

By default a proxy before one server spoils its answers; the slow tests kill servers and fill disks, with our own
limits of time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow_world import Proxy, Server, everything, runs

from xshot_bench.benchmarks import tracking
from xshot_bench.benchmarks.store import Store

ROOT = Path(__file__).resolve().parents[2]
ASK = ("--methods", "clip,prototype", "--shots", "1", "--draws", "2")
CELLS = 4
FOREVER = 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """One for all tests that do not kill it."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """A database that is always well."""
    return f"sqlite:///{tmp_path_factory.mktemp('undisturbed') / 'mlflow.db'}"


@pytest.fixture
def completed(bench, tmp_path, undisturbed) -> Callable[[str], None]:
    """Checks that sync makes of a server what an undisturbed one knows, each run once, and has then nothing to do."""

    def check(uri: str) -> None:
        results = tmp_path / "results"
        sync = ("sync", "--results", str(results), "--mlflow-uri")
        for place in (uri, undisturbed):
            called = bench(*sync, place, data=False)
            assert called.code == 0, called.err
        identity = Store(results).identity()
        wanted, found = everything(undisturbed, identity), everything(uri, identity)
        assert len(wanted) == len(Store(results).records()) + 1 and {run["status"] for run in wanted} == {"FINISHED"}
        assert found == wanted
        before = {run.info.run_id for kind in ("cell", "invocation") for run in runs(uri, kind, identity)}
        assert f"0 of {len(wanted) - 1} records were new" in bench(*sync, uri, data=False).out
        assert {run.info.run_id for kind in ("cell", "invocation") for run in runs(uri, kind, identity)} == before

    return check


def nth(part: str, n: int, then: Callable[[], int | None], times: int = FOREVER) -> Callable[[str], int | None]:
    """From the n-th request on that has ``part`` in it, so many requests are spoilt, whatever they ask."""
    seen, spoilt = 0, 0

    def spoil(request: str) -> int | None:
        nonlocal seen, spoilt
        seen += part in request
        if seen >= n and spoilt < times:
            spoilt += 1
            return then()
        return None

    return spoil


def hang_up() -> None:
    raise ConnectionError


@pytest.mark.parametrize(
    ("part", "n", "times"),
    [
        ("runs/update", 2, FOREVER),  # a cell is all but finished
        ("runs/log-inputs", 1, 3),  # and it answers again in the same run
        pytest.param("", 1, FOREVER, marks=pytest.mark.slow),  # down at the start
        pytest.param("runs/create", 1, FOREVER, marks=pytest.mark.slow),
        pytest.param("runs/create", 3, FOREVER, marks=pytest.mark.slow),
        pytest.param("runs/log-batch", 1, FOREVER, marks=pytest.mark.slow),  # the invocation has no parameters yet
        pytest.param("runs/log-batch", 3, FOREVER, marks=pytest.mark.slow),
        pytest.param("PUT ", 1, FOREVER, marks=pytest.mark.slow),
        pytest.param("PUT ", 4, FOREVER, marks=pytest.mark.slow),
        pytest.param("runs/set-tag", 2, FOREVER, marks=pytest.mark.slow),  # the invocation is nearly finished
        pytest.param("runs/update", 5, FOREVER, marks=pytest.mark.slow),
    ],
)
def test_a_server_that_dies_costs_nothing(bench, proxy, caplog, impatient, completed, part, n, times):
    proxy.spoil = nth(part, n, hang_up, times)
    called = bench(*ASK, "--mlflow-uri", proxy.uri)
    assert called.code == 0 and "| prototype" in called.out
    said_once(caplog, proxy.uri, "Is the server running")
    proxy.spoil = lambda _: None
    completed(proxy.uri)


def said_once(caplog, uri: str, mend: str) -> None:
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("xshot_bench")]
    assert message.startswith(f"MLflow at {uri} cannot be used: ") and mend in message and "\n" not in message
    assert len(message) < 600 and f" --mlflow-uri {uri}` logs it later" in message


@pytest.mark.parametrize(
    ("part", "code", "mend"),
    [
        ("PUT ", 507, "Its disk is full"),
        pytest.param("runs/log-batch", 500, "Its log says why", marks=pytest.mark.slow),
        pytest.param("runs/create", 401, "MLFLOW_TRACKING_USERNAME", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_is_full_or_locked_costs_nothing(bench, proxy, caplog, impatient, completed, part, code, mend):
    proxy.spoil = nth(part, 2, lambda: code)
    assert bench(*ASK, "--mlflow-uri", proxy.uri).code == 0
    said_once(caplog, proxy.uri, mend)
    proxy.spoil = lambda _: None
    completed(proxy.uri)


def test_a_slow_server_does_not_keep_the_run_from_ending(bench, proxy, caplog, impatient, completed, monkeypatch):
    monkeypatch.setattr(tracking, "AT_THE_END", 2.0)
    proxy.spoil = lambda _: time.sleep(1.5)  # less than the timeout: it is never an error
    start = time.monotonic()
    assert bench(*ASK, "--mlflow-uri", proxy.uri).code == 0
    slow = time.monotonic() - start
    said_once(caplog, proxy.uri, "it is too slow")
    proxy.spoil = lambda _: None
    completed(proxy.uri)
    start = time.monotonic()
    bench(*ASK, "--mlflow-uri", proxy.uri, "--force")
    assert slow < time.monotonic() - start + 15


@pytest.mark.slow
def test_an_answer_that_gets_lost_doubles_nothing(bench, proxy, impatient, completed):
    lost = nth("runs/create", 3, lambda: 1, times=1)
    proxy.lose = lambda request: bool(lost(request))
    assert bench(*ASK, "--mlflow-uri", proxy.uri).code == 0
    proxy.lose = lambda _: False
    completed(proxy.uri)


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (401, "it refuses us (401). Set the environment variables MLFLOW_TRACKING_USERNAME"),
        (404, "no MLflow server"),
    ],
)
def test_a_wrong_server_is_said_in_a_line(bench, proxy, tmp_path, impatient, code, mend):
    bench(*ASK)
    proxy.spoil = lambda _: code
    called = bench("sync", "--results", str(tmp_path / "results"), "--mlflow-uri", proxy.uri, data=False)
    assert called.code == 2 and mend in called.err and len(called.err.splitlines()) == 1


WAITING = """
import threading
import time
from pathlib import Path
from xshot_bench.methods.base import EmbeddingMethod

class Waiting(EmbeddingMethod):
    '''Waits for a file.'''
    def fit(self, task):
        end = time.monotonic() + 300
        while task.seed == {seed} and not Path({file!r}).exists() and time.monotonic() < end:
            time.sleep(0.1)
    def embed(self, x, modality):
        return x
"""


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
def test_a_server_killed_in_mid_run_costs_nothing(bench, own_server, tmp_path, caplog, completed, back):
    """While a cell waits, the server has the cells before it and is killed; the rest come when it is back, or not."""
    go, plugin = tmp_path / "go", tmp_path / "waiting.py"
    plugin.write_text(WAITING.format(seed=2, file=str(go)))

    def disturb() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and len(list((tmp_path / "results/cells").glob("*.json"))) < 2:
            time.sleep(0.1)
        own_server.kill()
        if back:
            own_server.start()
        go.touch()

    killer = threading.Thread(target=disturb)
    killer.start()
    asked = ("--methods", "waiting,clip", "--plugin", str(plugin), "--shots", "1", "--draws", "4")
    called = bench(*asked, "--mlflow-uri", own_server.uri)
    killer.join()
    assert called.code == 0 and "| waiting" in called.out
    if back:
        assert not [r for r in caplog.records if r.name.startswith("xshot_bench")] or "cannot be used" in caplog.text
    else:
        said_once(caplog, own_server.uri, "Is the server running")
        own_server.start()
    completed(own_server.uri)


@pytest.mark.slow
def test_a_server_that_stalls_is_left_behind(bench, proxy, caplog, completed):
    """With our own limits: each answer takes longer than we wait for one."""
    proxy.spoil = nth("", 6, lambda: time.sleep(40))
    start = time.monotonic()
    assert bench(*ASK, "--mlflow-uri", proxy.uri).code == 0
    assert time.monotonic() - start < 90
    said_once(caplog, proxy.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT")
    proxy.spoil = lambda _: None
    completed(proxy.uri)


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_slow_server(proxy, colour_folder, tmp_path, bench, completed):
    proxy.spoil = lambda _: time.sleep(8)
    plugin = tmp_path / "waiting.py"
    plugin.write_text(WAITING.format(seed=2, file=str(tmp_path / "go")))
    asked = ["--methods", "waiting,clip", "--plugin", str(plugin), "--shots", "1", "--draws", "4"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_bench.py"), "--jobs", "1", *asked, "--datasets", "manifest", "--root",
         str(colour_folder), "--encoder", "colours", "--plugin", str(ROOT / "tests/plugins/colours.py"), "--results",
         str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), "--mlflow-uri", proxy.uri],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list((tmp_path / "results/cells").glob("*.json"))) < 2:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in err and time.monotonic() - start < 20
    (tmp_path / "go").touch()
    proxy.spoil = lambda _: None
    assert bench(*asked).code == 0
    completed(proxy.uri)


@pytest.mark.slow
def test_a_server_on_a_full_disk_costs_nothing(bench, tmp_path, caplog, completed):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    server = None
    try:
        server = Server(disk)
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
            while True:
                filler.write(bytes(4096))
        assert bench(*ASK, "--mlflow-uri", server.uri).code == 0
        said_once(caplog, server.uri, "")
        (disk / "filler").unlink()
        completed(server.uri)
    finally:
        if server:
            server.kill()
        subprocess.run(["umount", "-l", disk], check=True)
