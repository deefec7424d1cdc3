"""MLflow as tests meet it: a real server that can be killed, a proxy that spoils its answers, and all that it knows."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

PATIENCE = 180  # seconds for a server to start; a busy machine needs many


class Server:
    """MLflow's tracking server, its SQLite database and artifacts in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._process = folder, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        place = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        place += ["--artifacts-destination", str(self.folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *place]
        settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, start_new_session=True, stdout=log, stderr=log, env={**os.environ, **settings}
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """End it and its workers by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Proxy:
    """Stands before a server and asks ``spoil`` of every request: None passes it on, an int is the answer's status.

    spoil: called with "METHOD /path"; may sleep, or raise `ConnectionError` to hang up. lose: of which requests the
    answer is lost after the server has done as it was asked.
    """

    def __init__(self, port: int) -> None:
        self.spoil: Callable[[str], int | None] = lambda request: None
        self.lose: Callable[[str], bool] = lambda request: False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = f"{self.command} {self.path}"
                try:
                    code = proxy.spoil(request)
                    status, body = (code, b"spoilt") if code else proxy._passed(port, self, content)
                    if proxy.lose(request):
                        raise ConnectionError
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def _passed(port: int, asked: BaseHTTPRequestHandler, content: bytes) -> tuple[int, bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        kept = {name: value for name, value in asked.headers.items() if name.lower() not in ("host", "accept-encoding")}
        upstream.request(asked.command, asked.path, content, kept)
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        return answer.status, body


def runs(uri: str, kind: str, store: str = "") -> list:
    """The runs of a kind; of one store, if it is named."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("xshot-bench")
    wanted = f"tags.kind = '{kind}'" + (f" and tags.store = '{store}'" if store else "")
    return client.search_runs([experiment.experiment_id], filter_string=wanted)


def everything(uri: str, store: str = "") -> list[dict]:
    """All that MLflow says, but for the names that it gives to runs and the times of its own."""
    client = MlflowClient(tracking_uri=uri)
    found = runs(uri, "invocation", store) + runs(uri, "cell", store)
    named = {run.info.run_id: run.data.tags.get("invocation", run.data.tags.get("cell")) for run in found}

    def files(run_id: str, folder: str = "") -> list[str]:
        listed = client.list_artifacts(run_id, folder)
        return [path for f in listed for path in (files(run_id, f.path) if f.is_dir else [f"{f.path} {f.file_size}"])]

    said = [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "metrics": {
                key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            "tags": {k: named.get(v, v) for k, v in run.data.tags.items() if k != "mlflow.user"},
            "inputs": sorted((i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs),
            "files": sorted(files(run.info.run_id)),
        }
        for run in found
    ]
    return sorted(said, key=lambda run: (run["tags"]["kind"], run["name"]))
