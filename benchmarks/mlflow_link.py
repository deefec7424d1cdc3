"""The one thread that talks to MLflow, so that cells do not wait for it, and what is said when it fails.

The first failure ends it. The thread is a daemon: a server that hangs keeps no run from ending.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from xshot_bench import InputError

Progress = Callable[[int, int], None]  # told how many calls were begun, and of how many

LOOK = 1.0  # seconds between words on how far a long wait is
AT_THE_END, WHEN_STOPPED = 60.0, 5.0  # seconds that a run waits for a server when all else is done; and on Ctrl-C
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    TIMEOUT: "10",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors are told by us
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where the table goes
}
EXPECTED = "Expected for --mlflow-uri: http://HOST:PORT, sqlite:///FILE, another database's URI, or none."


class Link:
    """Makes calls to MLflow at ``uri``, one after another, in a thread of its own.

    failed: told of the first failure, in one line. What waits holds references to records that the run holds anyway.
    """

    def __init__(self, uri: str, failed: Callable[[str], None]) -> None:
        self.uri, self._failed = uri, failed
        self.error = ""
        self._client: Any = None
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="mlflow", daemon=True)

    @property
    def local(self) -> bool:
        """Whether it is a database file, which no network makes slow."""
        return self.uri.startswith("sqlite:")

    @property
    def client(self) -> Any:
        """MLflow's client, asked for anew for every call: none is made after a failure."""
        if self.error:
            raise ConnectionAbortedError(self.error)
        if self._client is None:
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            if self.local:
                _do_not_sync()
                _make_database(Path(self.uri.removeprefix("sqlite:///")))
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def do(self, action: Callable[[], None]) -> None:
        """Do this after what waits already, unless something has failed by then."""
        if self.uri == "none" or self.error:
            return
        if self._thread.ident is None:
            self._thread.start()
        self._waiting.put(action)

    def finish(self, seconds: float | None = None, progress: Progress | None = None) -> None:
        """Wait until all is done; a server that needs more than ``seconds`` for that has failed."""
        if self._thread.ident is None:
            return
        total = self._waiting.qsize()
        self._waiting.put(None)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self._thread.join(min(left, LOOK))
            if progress and self._thread.is_alive():
                progress(min(total, total + 1 - self._waiting.qsize()), total)
        if self._thread.is_alive():
            self._fail(f"it is too slow: the run has ended and not all is logged {seconds:.0f} seconds later.")

    def _work(self) -> None:
        while action := self._waiting.get():
            if self.error:
                continue
            try:
                action()
            except Exception as error:  # whatever the server or the database does, the benchmark goes on
                self._fail(in_words(error, self.uri))

    def _fail(self, reason: str) -> None:
        if not self.error:
            self.error = reason
            self._failed(reason)


@cache
def _do_not_sync() -> None:
    """SQLite waits for the disk nine times a cell, for what can be made again from the store: have it not wait."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            with suppress(sqlite3.DatabaseError):  # a damaged one is noticed, and told, when it is used
                connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)


def _make_database(path: Path) -> None:
    """Make a database that is not there under another name first: a run that is killed in it leaves none half made."""
    if path.exists():
        return
    from mlflow import MlflowClient

    fresh = path.with_name(f"{path.name}.new")
    for left in (fresh, path.with_name(f"{fresh.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments()
    fresh.replace(path)


def checked_uri(uri: str) -> str:
    """The URI itself; `InputError` where it can be none."""
    if uri != "none" and not re.match(r"\w[\w+.-]*://|databricks|file:", uri):
        raise InputError(f"--mlflow-uri {uri!r} is no address. {EXPECTED}")
    return uri


def shown(uri: str) -> str:
    """The URI without its password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def in_words(error: Exception, uri: str) -> str:
    """What is wrong with MLflow and how to mend it, in one line."""
    causes = list(_causes(error))
    text = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    status = re.search(r"error code (\d{3}) !=|too many (\d{3}) error|^(\d{3}) (Client|Server) Error", str(error))
    code = int(status[1] or status[2] or status[3]) if status else 0
    if code in (401, 403):
        them = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        said = f"it refuses us ({code}). Set the environment variables {them}."
    elif code >= 500:
        said = f"it answers with error {code}. {'Its disk is full.' if code == 507 else 'Its log says why.'}"
    elif "timed out" in str(causes[-1]):
        said = f"it does not answer in time. Allow it more seconds by the environment variable {TIMEOUT}."
    elif uri.startswith("http") and any(isinstance(cause, OSError) for cause in causes):
        broken = getattr(causes[-1], "strerror", None) or "The connection broke off"
        said = f"{broken.rstrip('.')}. Is the server running, and is this its address?"
    elif code == 404 or "not in a valid JSON format" in text:
        said = "what answers there is no MLflow server. Is this its address?"
    elif "unsupported URI" in text:
        said = f"MLflow does not know such addresses. {EXPECTED}"
    else:
        mend = " If the database is damaged, delete it and sync again." if uri.startswith("sqlite:") else ""
        said = f"{text.rstrip('.')}.{mend}"
    return said


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
