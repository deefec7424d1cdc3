"""The command line as users meet it: tables, resuming, and one clear message for every mistake."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from xshot_bench.benchmarks.suite import Suite

ROOT = Path(__file__).resolve().parent.parent
FAILING = """
from xshot_bench.methods.base import EmbeddingMethod

class Moody(EmbeddingMethod):
    '''Fails at one shot.'''
    def fit(self, task):
        if task.shots == 1:
            raise RuntimeError("not at one shot")
    def embed(self, x, modality):
        return x
"""
SLOW = FAILING.replace("Moody", "Slow").replace("if task.shots == 1:", "import time; time.sleep(.3)\n        if False:")


def test_a_run_ends_in_a_table(bench):
    called = bench("--methods", "prototype,clip,random", "--shots", "0,2", "--draws", "3", "--format", "json")
    assert called.code == 0, called.err
    rows = {(row["method"], row["shots"]): row for row in called.table["rows"]}
    assert len(rows) == 6
    assert all(row["draws"] == 3 and 0 < row["mean"]["mean"] <= 1 for row in rows.values())
    assert rows["clip", 0]["mean"] == rows["clip", 2]["mean"]
    assert rows["clip", 0]["difference"] is None
    assert rows["prototype", 2]["difference"]["baseline"] == "clip"
    assert rows["random", 0]["mean"]["mean"] < rows["clip", 0]["mean"]["mean"]


def test_the_piped_table_says_what_it_measured(bench):
    called = bench("--methods", "clip,random", "--shots", "1", "--draws", "2")
    assert "| X" in called.out.replace("|   X", "| X")
    for said in ("mAP@all", "encoder colours", "split ", "random ranking", "Holm", "gallery 'test'"):
        assert said in called.out, called.out
    assert "Results: " in called.err


def test_done_cells_are_not_run_again_unless_forced(bench, tmp_path):
    first = bench("--methods", "clip,random", "--shots", "1", "--draws", "2", "--format", "json")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "cells").iterdir()}
    again = bench("--methods", "clip,random", "--shots", "1", "--draws", "2", "--format", "json")
    assert again.table == first.table
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "cells").iterdir()}
    forced = bench("--methods", "clip", "--shots", "1", "--draws", "2", "--force")
    assert forced.code == 0
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "cells").iterdir()}
    assert sum(written.get(path) != time for path, time in now.items()) == 4  # two records, two tables


def test_dry_run_counts_and_computes_nothing(bench, tmp_path):
    called = bench("--methods", "clip,random", "--shots", "1,2", "--draws", "2", "--dry-run")
    assert "8 cells: 8 new, 0 done, 0 declined, 0 failed" in called.out
    assert not (tmp_path / "results").exists() and not (tmp_path / "cache" / "features").exists()
    bench("--methods", "clip", "--shots", "1,2", "--draws", "2")
    called = bench("--methods", "clip,random", "--shots", "1,2", "--draws", "2", "--dry-run")
    assert "8 cells: 4 new, 4 done, 0 declined, 0 failed. 4 to compute" in called.out


def test_a_failing_method_costs_its_own_cells_and_is_tried_again(bench, tmp_path):
    plugin = tmp_path / "moody.py"
    plugin.write_text(FAILING)
    ask = ("--methods", "moody,clip", "--shots", "1,2", "--draws", "2", "--plugin", str(plugin))
    called = bench(*ask, "--format", "json")
    assert called.code == 1
    rows = {(row["method"], row["shots"]): row for row in called.table["rows"]}
    assert rows["moody", 1]["failed"] == 2 and rows["moody", 1]["mean"] is None
    assert rows["moody", 1]["reason"] == "failed: RuntimeError: not at one shot"
    assert rows["moody", 2]["draws"] == rows["clip", 1]["draws"] == 2
    assert "4 cells: " not in called.out
    traces = list((tmp_path / "results" / "cells").glob("*.traceback.txt"))
    assert len(traces) == 2 and "not at one shot" in traces[0].read_text()
    assert "6 done, 0 declined, 2 failed. 2 to compute" in bench(*ask, "--dry-run").out
    assert "failed: RuntimeError" in bench(*ask).out


def test_a_method_that_declines_is_no_failure(bench):
    called = bench("--methods", "linear_probe,clip", "--shots", "0", "--draws", "2")
    assert called.code == 0
    assert "declined: " in called.out


def test_switches_settings_and_ablations(bench):
    called = bench("--methods", "clip", "--ablate", "prototype", "--shots", "1", "--draws", "2", "--format", "json")
    rows = {row["method"]: row for row in called.table["rows"]}
    assert {"clip", "prototype"} < set(rows)
    for name, row in rows.items():
        if name.startswith("prototype:"):
            assert row["difference"]["baseline"] == "prototype"
    assert bench("--methods", "random", "--shots", "1", "--draws", "1", "--set", "random.nothing=1").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "flexclp"), "no method named 'flexclp'. Did you mean 'flexclip'?"),
        (("--methods", "prototype:zzz"), "no switch 'zzz'"),
        (("--methods", "clip,,random"), "names nothing at one place"),
        (("--methods", ""), "names nothing at one place"),
        (("--methods", "clip", "--encoder", "colour"), "Did you mean 'colours'?"),
        (("--methods", "clip", "--datasets", "manifst"), "Did you mean 'manifest'?"),
        (("--methods", "clip", "--datasets", "manifest/q"), "'q'"),
        (("--methods", "clip", "--shots", "-1"), "no number of shots"),
        (("--methods", "clip", "--shots", "a"), "no number of shots"),
        (("--methods", "clip", "--shots", "1.5"), "no number of shots"),
        (("--methods", "clip", "--shots", "²"), "no number of shots"),
        (("--methods", "clip", "--shots", "99999999999999999999"), "no number of shots"),
        (("--methods", "clip", "--shots", "1000"), "at most"),
        (("--methods", "clip", "--draws", "0"), "draws"),
        (("--methods", "clip", "--draws", "1000"), "support draws"),
        (("--methods", "clip", "--set", "clip"), "METHOD.PARAMETER=VALUE"),
        (("--methods", "clip", "--sweep", "prototype.shot_weight"), "METHOD.PARAMETER=VALUE,VALUE"),
        (("--methods", "clip", "--ablate", "random"), "declares no switches"),
        (("--methods", "prototype{shot_weight=1"), "NAME{PARAMETER=VALUE}"),
        (("--methods", "clip", "--set", "clip.needs=1"), "no parameter 'needs'. There are: centred."),
        (("--methods", "prototype", "--set", "prototype.shot_weight=nan"), "shot_weight=nan: it is no finite number"),
        (("--methods", "z" * 5000), "z'. There are: "),
        (("--methods", "clip", "--shots", ""), "Expected: whole numbers"),
        (("--methods", "clip", "--encoder", ""), "the suite's 'encoder' is empty"),
        (("--methods", "clip", "--correction", "none"), "'none' is not one of"),
        (("--methods", "clip", "--set", "prototype.weight=1"), "not among the methods"),
        (("--methods", "clip", "--baseline", "clp"), "no method named 'clp'. Did you mean 'clip'?"),
        (("--methods", "clip", "--device", "quantum"), "--device 'quantum' cannot be used"),
        (("--methods", "clip", "--suite", "nowhere"), "no suite 'nowhere'"),
        (("--methods", "clip", "--plugin", "nowhere.py"), "no such file"),
        (("--methods", "clip", "--root", "nowhere"), "nowhere"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_wrong_calls_get_one_message_and_exit_code_2(bench, tmp_path, arguments, message):
    called = bench(*arguments)
    assert called.code == 2
    assert message in " ".join(called.err.split())
    assert "Traceback" not in called.err
    assert len(called.err.strip().splitlines()) <= 5 and len(called.err) < 1500
    assert not called.out
    assert not (tmp_path / "results").exists()


def test_a_suite_file_with_an_unknown_key_is_said(bench, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('methods = ["clip"]\nshot = [1]\n')
    called = bench("--suite", str(suite))
    assert called.code == 2 and "unknown key 'shot'. Did you mean 'shots'?" in called.err
    suite.write_text("methods = [")
    assert "cannot be read" in bench("--suite", str(suite)).err


def test_what_a_suite_file_does_not_say_is_as_in_the_default_suite(tmp_path):
    default = Suite.from_options({})
    file = tmp_path / "mine.toml"
    for content, options, changed in (
        ('methods = ["clip"]', {}, {"methods": ("clip",)}),
        ("shots = [3]", {"draws": 2}, {"shots": (3,), "draws": 2}),
        ('ablate = "vtclip"', {}, {"ablate": "vtclip", "methods": ("vtclip",)}),
        ('methods = ["clip"]\nsweep = ["cca.power=1,2"]', {}, {"methods": ("clip",), "sweep": ("cca.power=1,2",)}),
        ('methods = ["clip"]', {"ablate": "vtclip"}, {"ablate": "vtclip", "methods": ("vtclip",)}),
    ):
        file.write_text(content)
        assert Suite.from_options(options, str(file)) == default.model_copy(update=changed)


def test_labels_and_texts_of_any_kind_come_through_to_every_table(bench, colour_folder, tmp_path):
    labels = ["a,b", "../../etc", 'say "x"', "two\nlines", "\u202eשלום\u202c", "=1+1", "<b>|</b> \\x{}"]
    folder = tmp_path / "data"
    shutil.copytree(colour_folder, folder)
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "label"])
        for n, picture in enumerate(sorted(folder.glob("*.png"))[: len(labels) * 12]):
            rows.writerow([picture.name, "red " * 25_000, labels[n // 12]])
    before = set(tmp_path.iterdir())
    for style in ("github", "rich", "json", "csv", "latex"):
        called = bench("--methods", "clip", "--shots", "1", "--draws", "2", "--root", str(folder), "--format", style)
        assert called.code == 0 and "clip" in called.out, called.err
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"results", "cache"}


@pytest.mark.parametrize("size", [100, 4000])
def test_a_disk_that_fills_up_is_said_and_loses_nothing(bench, tmp_path, size):
    """No file may be larger than ``size`` bytes: the first that is, is of the run's note, or a cell's table."""
    bench("--methods", "clip", "--shots", "1", "--draws", "1")
    kept = {path: path.read_bytes() for path in (tmp_path / "results" / "cells").iterdir()}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        code = bench("--methods", "clip,random", "--shots", "1", "--draws", "1").code
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert not [path for path in (tmp_path / "results").rglob(".*") if path.name != ".lock"]
    assert bench("--methods", "clip,random", "--shots", "1", "--draws", "1").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_message(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, str(ROOT / "run_bench.py"), "list"], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_a_second_run_in_the_same_folder_is_refused(bench, tmp_path):
    from xshot_bench.benchmarks.store import Store

    with Store(tmp_path / "results").writing():
        called = bench("--methods", "clip", "--shots", "1", "--draws", "1")
    assert called.code == 2 and "another run is writing" in called.err


def test_damaged_records_and_features_are_made_again(bench, tmp_path, caplog):
    ask = ("--methods", "clip", "--shots", "1", "--draws", "2", "--format", "json")
    first = bench(*ask)
    for record in (tmp_path / "results" / "cells").glob("*.json"):
        record.write_bytes(record.read_bytes()[:50])
    for array in (tmp_path / "cache").rglob("*.npy"):
        array.write_bytes(array.read_bytes()[:-2] + b"\x00\x7f")
    again = bench(*ask)
    assert again.code == 0
    assert caplog.text.count("is damaged") == 2 and "features are damaged" in caplog.text
    assert [row["mean"] for row in again.table["rows"]] == [row["mean"] for row in first.table["rows"]]


def test_list_shows_everything_and_what_is_broken(bench, tmp_path):
    from xshot_bench.run_bench import call  # noqa: F401 - the module must be importable before the call below

    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('the shelf is empty')\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), "list", "--plugin", str(broken)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    for name in ("flexclip", "clip", "openmoji", "manifest", "lite0_minilm", "open_clip"):
        assert f"  {name} " in done.stdout
    assert "BROKEN: RuntimeError: the shelf is empty" in done.stdout


def start(tmp_path: Path, folder: Path, plugin: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_bench.py"), "--methods", "slow,clip", "--shots", "1,2", "--draws", "3",
         "--datasets", "manifest", "--root", str(folder), "--encoder", "colours", "--mlflow-uri", "none",
         "--plugin", str(ROOT / "tests/plugins/colours.py"), "--plugin", str(plugin), "--format", "json",
         "--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(colour_folder, tmp_path_factory) -> list[dict]:
    """The table of the slow grid, run in one process without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    plugin = folder / "slow.py"
    plugin.write_text(SLOW)
    out, _ = start(folder, colour_folder, plugin, "--jobs", "1").communicate(timeout=120)
    return _numbers(out)


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_killed_run_loses_the_cell_in_flight_and_goes_on(tmp_path, colour_folder, undisturbed, blow, code):
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW)
    cells = tmp_path / "results" / "cells"
    process = start(tmp_path, colour_folder, plugin, "--jobs", "2")
    deadline = time.monotonic() + 60
    while len(list(cells.glob("*.json")) if cells.exists() else []) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(blow)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    kept = {path.name: path.read_bytes() for path in cells.glob("*.json")}
    assert 3 <= len(kept) < 12
    assert all(json.loads(content)["status"] == "done" for content in kept.values())
    _no_process_left(tmp_path)

    out, err = start(tmp_path, colour_folder, plugin, "--jobs", "2").communicate(timeout=120)
    assert out, err
    assert all((cells / name).read_bytes() == content for name, content in kept.items())
    assert _numbers(out) == undisturbed


INTERRUPTED = """
import signal, sys
from xshot_bench import run_bench
set_handler, moments = signal.signal, iter(range(9))
def interrupted(number, handler):
    set_handler(number, handler)
    if next(moments) == MOMENT:
        signal.raise_signal(signal.SIGINT)
signal.signal = interrupted
run_bench.main()
"""


@pytest.mark.parametrize(("moment", "code"), [(0, 130), (1, 130), (2, -signal.SIGINT), (3, -signal.SIGINT)])
def test_ctrl_c_beside_the_call_is_no_traceback(tmp_path, moment, code):
    """As soon as the program answers signals, and when all is done; then they end it as they end others."""
    command = [sys.executable, "-c", INTERRUPTED.replace("MOMENT", str(moment)), "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (code, "")
    assert ("flexclip" in done.stdout) == (moment > 1)


def test_ctrl_c_before_the_program_answers_is_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    command, path = [sys.executable, str(ROOT / "run_bench.py"), "list"], {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **path})
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def _numbers(out: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(out)["rows"]]


def _no_process_left(folder: Path) -> None:
    """No process of the run, which was started in this folder, outlives it by more than a moment."""
    for _ in range(100):
        if not any(process.info["cwd"] == str(folder) for process in psutil.process_iter(["cwd"])):
            return
        time.sleep(0.05)
    pytest.fail("a worker is still running")


def test_a_process_that_dies_costs_its_own_cells(tmp_path, colour_folder):
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW.replace("time.sleep(.3)", "os = __import__('os'); task.seed == 1 and os._exit(9)"))
    process = start(tmp_path, colour_folder, plugin, "--jobs", "2", "--shots", "1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    assert (rows["clip"]["draws"], rows["slow"]["draws"]) == (3, 2)
    assert "exit code 9" in rows["slow"]["reason"]


def test_the_program_runs_from_any_folder_and_is_no_datasets_package_for_others(tmp_path):
    code = "import importlib.util, runpy, sys; sys.argv = ['run_bench.py', 'list'];"
    code += f"\ntry: runpy.run_path({str(ROOT / 'run_bench.py')!r}, run_name='__main__')"
    code += "\nexcept SystemExit as stop: assert not stop.code"
    code += "\nspec = importlib.util.find_spec('datasets')"
    code += f"\nassert spec is None or not str(spec.origin).startswith({str(ROOT)!r} + '/datasets'), spec"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
