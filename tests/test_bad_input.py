"""A corpus of bad input, made systematically: each is one clear message, exit code 2, and nothing written."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xshot_bench import InputError
from xshot_bench.benchmarks.store import Store
from xshot_bench.datasets import _arrays
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.feature_cache import DamagedFeatures, FeatureSet, open_features, write_features
from xshot_bench.datasets.features import Features
from xshot_bench.datasets.manifest import Manifest
from xshot_bench.datasets.xshot import load_split
from xshot_bench.run_bench import call

ROOT = Path(__file__).resolve().parent.parent
COLOURS = str(ROOT / "tests/plugins/colours.py")
ODD = ["", " ", ",", "nowhere", "../../etc/passwd", "a\nb", "\u202eאב", "'; drop", "x" * 300, "{}", "[1]", "=1+1", "%s"]
NUMBERS = ["-1", "0", "1.5", "nan", "1e3", "0x10", "", "one", "²", "1,2", "1;2"]
CLI = {
    "--methods": [*ODD, "clip:", "clip:zzz", "clip{", "clip{a=1}", "clip{centred}", "clip,,random", ":", "clip:a+"],
    "--datasets": [*ODD, "manifest/z", "manifest/../b", "/", "openmoji,,manifest"],
    "--encoder": [*ODD, "colours/int4:x", "open_clip", "open_clip:", "open_clip:ViT-B-32", "open_clip:ViT-B-32@zzz",
                  "open_clip:ViT-B-32@/no/file.pt", "pair:", "pair:x", ":"],
    "--baseline": [odd for odd in ODD if odd],
    "--ablate": [*ODD[1:], "random"],
    "--set": [*ODD, "clip", "clip.", ".x=1", "clip.zzz=1", "clip.needs=1", "clip.centred=perhaps", "random.x=1"],
    "--sweep": [*ODD, "clip.centred", "clip.centred=", "clip.centred=true,,false", "clip.zzz=1", "zzz.a=1"],
    "--shots": [number for number in NUMBERS if number not in ("0", "1,2")] + ["1000", "9" * 30, "all", "-0", "+1"],
    "--draws": [*NUMBERS, "1000", "9" * 30],
    "--jobs": NUMBERS,
    "--cell-timeout": ["0", "-1", "nan", "inf", "", "one", "5 minutes", "1d", "1e3", "0.0s", "5m30s", "9" * 30],
    "--cell-memory": ["0", "4", "-4G", "nan", "", "G", "4 gigabytes", "0M", "4X", "1e9G", "9" * 30 + "G"],
    "--batch-size": NUMBERS,
    "--token-grid": NUMBERS,
    "--views": NUMBERS,
    "--margin": ["-1", "101", "x", "", "1;2", "-inf"],
    **{option: ["zzz", "", "TEST ", "a,b"] for option in ("--gallery", "--protocol", "--correction", "--ensemble")},
    "--format": ["zzz", "", "html"],
    "--device": ["zzz", "", "cuda:x", "cpu:y"],
    "--suite": [odd for odd in ODD if odd.strip()] + ["", "nowhere.toml"],
    "--plugin": ["nowhere.py", "", ".", "\n"],
    "--root": ["nowhere", "manifest=nowhere", "", COLOURS],
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, and results that must never come into being."""
    return tmp_path_factory.mktemp("bad")


def refused(world: Path, data: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says of a wrong call, after the checks that hold for all."""
    given = {"--methods": "clip", "--shots": "1", "--draws": "2", "--datasets": "manifest", "--root": str(data),
             "--encoder": "colours", "--results": str(world / "results"), "--cache": str(world / "cache")}  # fmt: skip
    options = [part for name, value in given.items() if name not in arguments for part in (name, value)]
    plugin = [] if "--plugin" in arguments else ["--plugin", COLOURS]
    capsys.readouterr()
    code = call([*options, *plugin, "--mlflow-uri", "none", *arguments])
    out, err = capsys.readouterr()
    if code != 2:
        shutil.rmtree(world / "results", ignore_errors=True)
    assert code == 2, (arguments, code, out[-500:], err[-500:])
    assert err.strip() and "Traceback" not in err and not out, (arguments, out, err)
    assert len(err) < 3000 and len(err.splitlines()) < 12, (arguments, err)
    written = (world / "results").exists()
    shutil.rmtree(world / "results", ignore_errors=True)
    assert not written, arguments
    return err


SLOW = ("--methods", "--datasets", "--encoder", "--sweep", "--ablate")


@pytest.mark.parametrize(
    "option", [pytest.param(option, marks=[pytest.mark.slow] * (option in SLOW)) for option in CLI]
)
def test_options(world, colour_folder, capsys, option):
    for value in CLI[option]:
        refused(world, colour_folder, [option, value], capsys)


SUBCOMMANDS = [
    *(["describe", odd] for odd in ODD), ["describe", "manifest"], ["describe", "manifest", "--root", "nowhere"],
    ["describe", "manifest", "--root", COLOURS], ["describe", "openmoji", "--sheet", "/no/where/x.png"],
    ["describe", "openmoji", "--encoder", "zzz"], ["describe", "openmoji", "--format", "zzz"], ["describe"],
    ["compare"], ["compare", "a"], *(["compare", "--", odd, odd] for odd in ODD), ["compare", COLOURS, COLOURS],
    ["compare", "--", "--output=woken", "HEAD"], ["compare", "HEAD:../..", "HEAD"], ["compare", "a", "b", "c"],
    ["compare", "a", "b", "--margin", "-1"], ["compare", "a", "b", "--correction", "zzz"],
    ["report", "--results", "nowhere"], ["report", "--results", COLOURS], ["report", "--to", "."], ["report", "zzz"],
    ["sync", "--results", "nowhere"], ["sync", "--results", COLOURS], ["sync", "zzz"],
    *(["splits", odd] for odd in ODD), ["splits", "manifest"], ["splits", "clip"], ["splits"],
    *(["fetch", odd] for odd in ODD), ["fetch", "manifest"], ["fetch", "openmoji"], ["fetch"],
    ["list", "zzz"], ["list", "--plugin", "nowhere.py"], ["zzz"], ["--zzz"], ["--shots"], ["describe", "--zzz"],
]  # fmt: skip


def test_subcommands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(SUBCOMMANDS) > 80
    for arguments in SUBCOMMANDS:
        capsys.readouterr()
        code = call(arguments)
        out, err = capsys.readouterr()
        assert code == 2 and err.strip() and not out and "Traceback" not in err, (arguments, code, out, err)
        assert len(err) < 3000 and len(err.splitlines()) < 12, (arguments, err)
        assert not list(tmp_path.iterdir()), arguments


SUITE: dict[str, Any] = {
    "methods": ["clip"], "datasets": ["manifest"], "encoder": "colours", "shots": [1], "draws": 2, "gallery": "test",
    "protocol": "xshot", "baseline": "clip", "sweep": [], "correction": "holm", "margin": 0.5,
    "settings": {"clip": {"centred": False}}, "oracle": False,
}  # fmt: skip
VALUES = ["zzz", "", 3.5, -1, 10**30, float("nan"), [], [[]], ["", 1], {"a": 1}, {"clip": 1}, True, [{}], [-1], [1.5]]


def _bad_suites() -> Iterator[dict[str, Any]]:
    fitting = {("baseline", ""), ("sweep", "[]"), ("oracle", "True"), ("margin", "3.5"), ("margin", "True"),
               ("draws", "True"), ("shots", "[]"), ("ablate", "")}  # fmt: skip
    for key in SUITE:
        yield from ({**SUITE, key: value} for value in VALUES if (key, str(value)) not in fitting)
    yield {**SUITE, "shots": []}
    yield from ({**SUITE, key: 1} for key in ("shot", "method", "zzz", "Methods"))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value).lower()


def test_suites(world, colour_folder, capsys):
    """Every key misspelt, or with a value of another kind; files that are no TOML."""
    file = world / "suite.toml"
    fixed = ["--results", str(world / "results"), "--cache", str(world / "cache"), "--root", str(colour_folder)]
    texts = ["\n".join(f"{key} = {_toml(value)}" for key, value in suite.items()) for suite in _bad_suites()]
    texts += [
        "methods = [",
        "= 1",
        "[a\n",
        "methods = 'a\n",
        "a.b = 1\na = 1",
        "\ufffe",
        "[[methods]]",
        "methods = " + "[" * 10**5,
        "a." * 10**5,
    ]
    assert len(texts) > 150 and sum(map(len, [*CLI.values(), *MANIFESTS.values(), texts])) > 400
    for text in texts:
        file.write_text(text)
        capsys.readouterr()
        code = call([*fixed, "--plugin", COLOURS, "--mlflow-uri", "none", "--suite", str(file)])
        out, err = capsys.readouterr()
        assert code == 2 and err and not out and "Traceback" not in err and len(err) < 3000, (text, code, err)
        assert not (world / "results").exists(), text


GOOD_ROWS = [(f"red{n}.png", f"thing {n}", "a") for n in range(4)]


def _csv(*rows: tuple[str, ...], head: str = "file_name,text,label") -> bytes:
    return "\n".join([head, *(",".join(row) for row in rows)]).encode()


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


MANIFESTS = {
    "metadata.csv": [
        b"", b"\n\n", b"file_name", b"file_name,text,label", b"text,label\na,b", b"file_name;text;label\na;b;c",
        _csv(*GOOD_ROWS), _csv(*GOOD_ROWS, ("red0.png", "again", "a")), _csv(("no.png", "a", "b")),
        _csv(("../x.png", "a", "b")), _csv(("/etc/passwd", "a", "b")), _csv(("red0.png", "", "b")),
        _csv(("red0.png", "a", "")), _csv(("", "a", "b")), _csv(("red0.png", "a", "b", "c")), _csv(("red0.png",)),
        _csv(("red0.png", "a", "b", "dev"), head="file_name,text,label,split"), _csv((".", "a", "b")),
        _csv(("red0.png", "a", "b", "c"), head="file_name,text,label,size"), _csv(("red0.png/x", "a", "b")),
        _csv(("red0.png", "a", "b"), head="file_name,text,text"), _csv(('"red0.png', "a", "b")), b"\xff\xfe\x00",
        _csv(("red0.png", "a\0", "b")), b"\x89PNG\r\n\x1a\n", _csv(("red0.png", "x" * 10**6, "")), b"," * 10**5,
        _csv(("red0.png", "../x.txt", "b"), head="file_name,text_file,label"), _csv(("metadata.csv", "a", "b")),
        _csv(("n" * 5000, "a", "b")), _csv(("\u202e.png", "a", "b")), b"file_name,text,label\r\r\r",
    ],
    "metadata.jsonl": [
        b"", b"{", b"[1]", b"null", b"1", b'"a"', b"[" * 10**5, b"\xff", b"{}", _line(file_name="red0.png"),
        _line(file_name="red0.png", text=["a"], label="b"), _line(file_name="red0.png", text=None, label="b"),
        _line(file_name=1, text="a", label="b"), _line(file_name={}, text="a", label="b"), b'{"file_name": NaN}',
        _line(file_name="red0.png", text="a", label={}), _line(file_name="../a", text="a", label="b"),
        _line(file_name="a\0b", text="a", label="b"), b'{"file_name": "a", "file_name": "b"}',
        b'{"file_name": "red0.png", "text": "\\ud800", "label": "b"}', b'{"file_name": ' + b"9" * 5000 + b"}",
    ],
}  # fmt: skip


def test_manifests(tmp_path, colour_folder):
    for picture in colour_folder.glob("red*.png"):
        shutil.copy(picture, tmp_path)
    for name, contents in MANIFESTS.items():
        for content in contents:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError) as said:
                Manifest.open(DatasetOptions(tmp_path)).split()
                pytest.fail(str(content[:200]))
            assert len(str(said.value)) < 3000, content[:200]
        (tmp_path / name).unlink()


def _damages(content: bytes) -> Iterator[bytes]:
    """What a file may have become: cut, emptied, garbage, another kind of file, more in front."""
    rng = random.Random(0)
    yield from (b"", content[:1], content[: len(content) // 2], content[:-1], rng.randbytes(300), b"\0" * 500)
    yield from (b"[" * 10**5, b"{}", b"[]", b"null", b'"a"', b"\xff" + content, b"\x80\x04.", b"PK\x03\x04" + content)


def test_split_files(tmp_path):
    content = (ROOT / "datasets/splits/openmoji.json").read_bytes().strip()
    file = tmp_path / "openmoji.json"
    parsed = json.loads(content)
    edited = [{key: value for key, value in parsed.items() if key != name} for name in parsed]
    edited += [{**parsed, name: value} for name in parsed for value in (None, 1, "a", [], {}, [[]], {"a": 1}, [None])]
    for damaged in [*_damages(content), *(json.dumps(one).encode() for one in edited)]:
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"splits openmoji") as said:
            load_split(file)
        assert len(str(said.value)) < 1000


def _savers() -> dict[str, Callable[[Path, dict[str, np.ndarray]], None]]:
    import h5py
    from safetensors.numpy import save_file
    from scipy.io import savemat

    def hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
        with h5py.File(path, "w") as file:
            file.update(arrays)

    return {"f.npz": lambda path, arrays: np.savez(path, **arrays), "f.safetensors": lambda p, a: save_file(a, p),
            "f.mat": savemat, "f.h5": hdf5}  # fmt: skip


@pytest.mark.parametrize("file", ["f.npz", "f.safetensors", "f.mat", "f.h5"])
def test_feature_files(tmp_path, file):
    rng = np.random.default_rng(0)
    good = {"image": rng.random((48, 4)), "text": rng.random((48, 4)), "label": np.arange(48) % 6}
    save = _savers()[file]
    save(tmp_path / file, good)
    assert len(Features.open(DatasetOptions(tmp_path / file)).items) == 48
    changes = [{"image": good["image"][:9]}, {"text": np.zeros((0, 4))}, {"label": np.zeros(48)},
               {"label": rng.random(48)},
               {"image": np.zeros(48)}, {"image": np.full((48, 4), np.nan)}, {"label": np.arange(48) + 2**40},
               {"label": np.full(48, -1)}, {"image": good["image"].T.copy()}]  # fmt: skip
    content = (tmp_path / file).read_bytes()
    for change in changes:
        save(tmp_path / file, good | change)
        _refused_features(tmp_path / file, str(change)[:80])
    for number, damaged in enumerate(_damages(content)):
        (tmp_path / file).write_bytes(damaged)
        if not (file == "f.npz" and damaged.endswith(content)):  # what stands before a zip is no matter
            _refused_features(tmp_path / file, f"damage {number}")


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    """Zeros compress a thousandfold; an array may be a hundred times its file, or a gigabyte."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, image=np.zeros((140_000, 1024)), text=np.zeros((4, 4)), label=np.zeros(4))
    assert path.stat().st_size < 2**21
    with pytest.raises(InputError, match="bomb.npz cannot be read.*would become 1,146,880,128 bytes"):
        Features.open(DatasetOptions(path))


def test_a_matlab_cell_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    """A cell's shape says nothing of what is in it."""
    from scipy.io import savemat

    monkeypatch.setattr(_arrays, "MOST_BYTES", 2**20)

    path = tmp_path / "bomb.mat"
    cells = np.empty(4, object)
    cells[:] = [np.zeros((1000, 1024))] * 4
    savemat(path, {"image": cells, "text": np.zeros((4, 4)), "label": np.zeros(4)}, do_compression=True)
    with pytest.raises(InputError, match=r"bomb.mat cannot be read.*would become [\d,]+ bytes or more"):
        Features.open(DatasetOptions(path))


def _refused_features(path: Path, what: str) -> None:
    with pytest.raises(InputError) as said:
        Features.open(DatasetOptions(path)).split()
        pytest.fail(what)
    assert len(str(said.value)) < 6000, what


@pytest.fixture(scope="module")
def computed(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one record."""
    folder = tmp_path_factory.mktemp("computed")
    assert not call(["--methods", "clip", "--shots", "1", "--draws", "1", "--datasets", "manifest", "--root",
                     str(colour_folder), "--encoder", "colours", "--plugin", COLOURS, "--mlflow-uri", "none",
                     "--jobs", "1", "--results", str(folder / "results"), "--cache", str(folder / "c")])  # fmt: skip
    return folder


def test_result_records(computed, caplog):
    """A damaged record is none: it is said, and its cell is run again."""
    store = Store(computed / "results")
    (path,) = store.cells.glob("*.json")
    content = path.read_bytes()
    parsed = json.loads(content)
    required = ("cell", "status", "provenance", "ap_file", "ap_sha256")
    edited = [{key: value for key, value in parsed.items() if key != name} for name in required]
    edited += [{**parsed, name: value} for name in parsed for value in (None, 1.5, [1], {"a": [[]]})]
    edited += [{**parsed, "cell": {**parsed["cell"], name: None}} for name in parsed["cell"]]
    edited += [{**parsed, "ap_file": name} for name in ("../x", "/etc/passwd", "a\0b", "x" * 5000)]
    for damaged in [*_damages(content), *(json.dumps(one).encode() for one in edited)]:
        path.write_bytes(damaged)
        caplog.clear()
        assert store.record(path.stem) is None, damaged[-900:]
        assert "is damaged" in caplog.text and len(caplog.text) < 3000
    path.write_bytes(content)
    assert store.record(path.stem)


def small_features(digest: str = "d" * 64) -> FeatureSet:
    array = np.ones((6, 4), np.float16)
    return FeatureSet(array, array, np.arange(6), tuple("abcdef"), tuple("uvwxyz"), array, 10.0, digest)


def test_cached_features(tmp_path):
    folder = tmp_path / ("d" * 64)
    write_features(folder, small_features())
    for file in ("features.json", "image.npy"):
        content = (folder / file).read_bytes()
        parsed = json.loads(content) if file.endswith("json") else {}
        parsed.pop("format", None)  # it is in the folder's name
        edited = [{key: value for key, value in parsed.items() if key != name} for name in parsed]
        edited += [{**parsed, name: value} for name in parsed for value in (None, "zzz", [[1]], {"a": 1})]
        for damaged in [*_damages(content), *(json.dumps(one).encode() for one in edited)]:
            (folder / file).write_bytes(damaged)
            with pytest.raises(DamagedFeatures):
                open_features(folder)
                pytest.fail(str(damaged[-300:]))
        (folder / file).write_bytes(content)
    assert open_features(folder)


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.mark.slow
@settings(QUICK, max_examples=15)
@given(option=st.sampled_from(["--methods", "--datasets", "--shots", "--set", "--sweep", "--draws"]), value=WORDS)
def test_any_text_as_an_option_is_understood_or_refused(world, colour_folder, capsys, option, value):
    capsys.readouterr()
    code = call(["--datasets", "manifest", "--root", str(colour_folder), "--encoder", "colours", "--plugin", COLOURS,
                 "--methods", "clip", "--shots", "1", "--draws", "1", "--cache", str(world / "cache"), "--results",
                 str(world / "results"), "--dry-run", option, value])  # fmt: skip
    assert code in (0, 2)
    assert bool(capsys.readouterr().err) == (code == 2)
    assert not (world / "results").exists()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))  # fmt: skip
NAMES = st.sampled_from(["file_name", "text", "label", "split", "text_file"]) | WORDS


@QUICK
@given(rows=st.lists(st.dictionaries(NAMES, JSON, max_size=5) | JSON, max_size=4), csv=st.booleans(), text=WORDS)
def test_any_manifest_is_refused_in_one_message(tmp_path, rows, csv, text):
    """No picture lies in the folder, so nothing can be good."""
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).unlink(missing_ok=True)
    content = f"file_name,text,label\n{text}" if csv else "\n".join(map(json.dumps, rows))
    (tmp_path / ("metadata.csv" if csv else "metadata.jsonl")).write_text(content, encoding="utf-8")
    for skip in (False, True):
        with pytest.raises(InputError) as said:
            Manifest.open(DatasetOptions(tmp_path, skip))
        assert len(str(said.value)) < 3000


def _read_split(folder: Path) -> None:
    load_split(folder / "openmoji.json")


def _read_arrays(folder: Path) -> None:
    Features.open(DatasetOptions(next(folder.glob("f.*")))).split()


READERS: dict[str, Callable[[Path], object]] = {
    "openmoji.json": _read_split, "f.npz": _read_arrays, "f.mat": _read_arrays, "f.safetensors": _read_arrays,
    "f.h5": _read_arrays, "features.json": open_features, "image.npy": open_features,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@settings(QUICK, max_examples=80)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), min_size=1, max_size=4))
def test_any_damage_to_a_file_is_noticed_or_without_effect(tmp_path_factory, name, edits):
    """Bytes overwritten anywhere: a split or features that are refused in one message, or read."""
    folder = tmp_path_factory.mktemp("damaged")
    if name == "openmoji.json":
        shutil.copy(ROOT / "datasets/splits/openmoji.json", folder)
    elif name in ("features.json", "image.npy"):
        folder = folder / ("d" * 64)
        write_features(folder, small_features())
    else:
        rng = np.random.default_rng(0)
        _savers()[name](folder / name, {"image": rng.random((48, 4)), "text": rng.random((48, 4)),
                                        "label": np.arange(48) % 6})  # fmt: skip
    content = bytearray((folder / name).read_bytes())
    for where, new in edits:
        start = int(where * len(content))
        content[start : start + len(new)] = new
    (folder / name).write_bytes(content)
    try:
        READERS[name](folder)
    except (InputError, DamagedFeatures) as said:
        assert len(str(said)) < 6000


@settings(QUICK, max_examples=80)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), min_size=1, max_size=4))
def test_any_damage_to_a_record_is_noticed_or_without_effect(computed, edits):
    store = Store(computed / "results")
    (path,) = store.cells.glob("*.json")
    whole = path.read_bytes()
    content = bytearray(whole)
    for where, new in edits:
        start = int(where * len(content))
        content[start : start + len(new)] = new
    try:
        path.write_bytes(content)
        record = store.record(path.stem)
        assert record is None or record.cell.digest == path.stem
    finally:
        path.write_bytes(whole)
