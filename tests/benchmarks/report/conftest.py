"""A report of real runs on a dataset whose every text tries to break out of the page."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import pytest
from reporting import ALERT, DRAWS, ENDING, METHODS, SHOTS, Reported

from xshot_bench.benchmarks.compare import compare
from xshot_bench.benchmarks.invocation import Invocation
from xshot_bench.benchmarks.report.spots import Findings, spots

COLOURS = Path(__file__).parents[2] / "plugins" / "colours.py"


@pytest.fixture(scope="session")
def hostile_folder(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour dataset with markup in texts, class names and file names."""
    folder = tmp_path_factory.mktemp("hostile") / "<i id='x'>a&b"
    folder.mkdir()
    with (colour_folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "text", "label"])
        writer.writeheader()
        for n, row in enumerate(rows):
            name = f"a&b'<i>{row['file_name']}"
            (folder / name).write_bytes((colour_folder / row["file_name"]).read_bytes())
            text = f"{row['text']} {ENDING if n % 2 else ALERT}"
            writer.writerow({"file_name": name, "text": text, "label": f"{row['label']} <b>&$1$"})
    return folder


@pytest.fixture(scope="session")
def reported(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """`run_bench.py` and then `run_bench.py report`, both for real."""
    from xshot_bench.run_bench import call

    folder = tmp_path_factory.mktemp("reported")
    options = (
        "--methods", ",".join(METHODS), "--shots", ",".join(map(str, SHOTS)), "--draws", str(DRAWS),
        "--datasets", "manifest,manifest/b", "--root", str(hostile_folder), "--encoder", "colours",
        "--plugin", str(COLOURS), "--results", str(folder / "results"), "--cache", str(folder / "cache"),
        "--mlflow-uri", "none",
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        assert call([*options, "--jobs", "1"]) == 0
        assert call(["report", *options, "--to", str(folder / "page.html"), "--figures", str(folder / "figures")]) == 0
    with (hostile_folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        items = {row["file_name"]: row for row in csv.DictReader(file)}
    return Reported(folder, hostile_folder, options, out.getvalue(), items)


@pytest.fixture(scope="session")
def findings(reported: Reported) -> Findings:
    """What the report was made from, read from the store once more."""
    from xshot_bench.run_bench import cli

    context = cli.make_context("run_bench", list(reported.options))
    call = Invocation.from_options(context.params)
    plan = call.plan()
    found = tuple(spots(plan, plan.records, call.store))
    return Findings(plan, compare(plan, plan.records, call.store), found, call.inputs, call.registry.plugins)
