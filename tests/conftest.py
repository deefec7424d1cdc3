"""What many tests share."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background job ignores it, and so would runs of ours

COLOURS = Path(__file__).parent / "plugins" / "colours.py"


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colours(folder)
    return folder


def write_colours(folder: Path) -> None:
    """A manifest dataset: eight classes (colours) of twelve noisy pictures with a text each."""
    rng = np.random.default_rng(0)
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0),
               "purple": (1, 0, 1), "cyan": (0, 1, 1), "white": (1, 1, 1), "black": (0, 0, 0)}  # fmt: skip
    names = list(colours)
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "label"])
        for c, (label, colour) in enumerate(colours.items()):
            for n in range(12):
                pixels = 255 * (0.6 * np.array(colour) + 0.4 * rng.random((8, 8, 3)) * rng.random(3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{label}{n}.png")
                rows.writerow([f"{label}{n}.png", f"{label if n % 3 else names[c - 1]} thing {n}", f"class-{label}"])


@dataclass(frozen=True)
class Called:
    """What a call of the program left: exit code, standard output and error."""

    code: int
    out: str
    err: str

    @property
    def table(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def bench(colour_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Calls the program in this process, on the colour dataset, with results and cache in the test's own folder."""
    from xshot_bench.run_bench import call

    def run(*arguments: str, data: bool = True, command: str = "") -> Called:
        given = [command] if command else ["--jobs", "1"]
        given += ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
        if data:
            given += ["--datasets", "manifest", "--root", str(colour_folder), "--encoder", "colours"]
            given += ["--plugin", str(COLOURS)]
        if "--mlflow-uri" not in arguments:
            given += ["--mlflow-uri", "none"]
        capfd.readouterr()
        code = call([*given, *arguments])
        return Called(code, *capfd.readouterr())

    return run


@pytest.fixture
def impatient(monkeypatch) -> None:
    """MLflow gives up soon: what the user sets in the environment counts."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
