"""The one thread that tells MLflow: what it says of what is wrong, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from xshot_bench.benchmarks import mlflow_link
from xshot_bench.benchmarks.mlflow_link import Link, in_words, shown


def test_an_address_that_can_be_none_is_refused_at_once(bench, tmp_path):
    for wrong in ("nonsense", "./mlruns", "localhost:5000"):
        called = bench("--methods", "clip", "--shots", "1", "--mlflow-uri", wrong)
        assert called.code == 2 and "no address. Expected for --mlflow-uri: http://HOST:PORT" in called.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://127.0.0.1:9", "MLflow does not know such addresses. Expected"),
        ("http://127.0.0.1:9", "Connection refused. Is the server running"),
        ("http://no-such-host.invalid", "Is the server running"),
    ],
)
def test_what_is_wrong_is_said_in_words(uri, said, impatient):
    told: list[str] = []
    link = Link(uri, told.append)
    link.do(lambda: link.client.get_experiment_by_name("x"))
    link.do(lambda: told.append("more was done"))
    link.finish()
    assert len(told) == 1 and said in told[0] and "\n" not in told[0]


def test_what_waits_for_a_slow_server_takes_little_memory_and_does_not_keep_the_run():
    stuck, link = threading.Event(), Link("http://127.0.0.1:9", lambda _: None)
    link.do(lambda: stuck.wait(60) and None)
    record = object()
    tracemalloc.start()
    for _ in range(30_000):
        link.do(lambda: record and None)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 10e6
    start = time.monotonic()
    link.finish(0.1)
    assert time.monotonic() - start < 5 and "it is too slow" in link.error
    stuck.set()


def test_a_long_wait_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_link, "LOOK", 0.01)
    told: list[tuple[int, int]] = []
    gates = [threading.Event() for _ in range(3)]
    link = Link(f"sqlite:///{tmp_path / 'never.db'}", pytest.fail)

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done < len(gates):
            gates[done].set()

    for gate in gates:
        link.do(lambda gate=gate: gate.wait(60) and None)
    while link._waiting.qsize() > 2:  # the first is being made
        time.sleep(0.01)
    link.finish(progress=progress)
    assert told[0] == (0, 2) and {total for _, total in told} == {2}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_password_is_not_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert shown("http://host:5000") == "http://host:5000"
    assert "secret" not in in_words(OSError("no route"), "postgresql://me:secret@host/db")
