"""An installed build shadows nobody, and the library that shares a name with our folder may be there or not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Stands in for the library: what others look at first is its version and a name or two.
LIBRARY = '__version__ = "4.0.0"\nclass Dataset:\n    """Not ours."""\n'


def run(code: str, *paths: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A built wheel of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True, timeout=300
    )
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_one_package_with_all_it_needs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"xshot_bench"}
    for needed in (
        "xshot_bench/run_bench.py",
        "xshot_bench/benchmarks/suites/default.toml",
        "xshot_bench/datasets/splits/openmoji.json",
        "xshot_bench/datasets/encoders/lite0_minilm/heads.safetensors",
        "xshot_bench/methods/flexclip/__init__.py",
        "xshot_bench/py.typed",
    ):
        assert needed in names
    sources = {
        f"xshot_bench/{p.relative_to(ROOT)}"
        for part in ("benchmarks", "methods", "datasets")
        for p in (ROOT / part).rglob("*.py")
    }
    assert sources <= set(names)
    code = "import xshot_bench.run_bench as r; r.call(['list'])"
    code += "; import importlib.util as u; assert not u.find_spec('methods')"
    done = run(code, tmp_path / "site", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "flexclip" in done.stdout


@pytest.mark.parametrize("installed", [True, False])
def test_it_runs_with_and_without_the_library_named_datasets(installed, tmp_path, colour_folder):
    if installed:
        package = tmp_path / "site" / "datasets"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(LIBRARY)
    arguments = [
        "--methods", "clip", "--shots", "1", "--draws", "1", "--datasets", "manifest", "--root", str(colour_folder),
        "--encoder", "colours", "--plugin", str(ROOT / "tests/plugins/colours.py"), "--mlflow-uri", "none",
        "--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), "--jobs", "2",
    ]  # fmt: skip
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['run_bench.py', *{arguments!r}]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"  # as `python run_bench.py` does
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'run_bench.py')!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0, stop.code\n"
        "import importlib.util\n"
        + ("import datasets; assert datasets.Dataset.__doc__ == 'Not ours.'" if installed else "")
    )
    done = run(code, tmp_path / "site", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "clip" in done.stdout


def test_an_installed_packages_method_is_found_and_run(bench, tmp_path):
    """``tests/plugin_package`` is a real package; one of its two entry points names something that is not there."""
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(site),
            str(ROOT / "tests/plugin_package"),
        ],
        check=True,
        timeout=300,
    )
    code = "import xshot_bench.run_bench as r; r.call(['list'])"
    done = run(code, site, cwd=tmp_path)
    assert "Ranks everything the wrong way round." in done.stdout, done.stderr
    assert "BROKEN: AttributeError" in done.stdout
    code = (
        "from xshot_bench.benchmarks.registry import Registry; r = Registry();"
        "assert r.load('method', 'backwards').__name__ == 'Backwards'; r.load('method', 'clip')"
    )
    assert run(code, site, cwd=tmp_path).returncode == 0
