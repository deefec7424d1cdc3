"""Found by name, imported only when used, and a broken one breaks nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xshot_bench import InputError
from xshot_bench.benchmarks import code_digest, registry
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods import base
from xshot_bench.methods.base import Method

GOOD = """
from torch import Tensor
from xshot_bench.methods.base import EmbeddingMethod, Modality, Task

class Shifted(EmbeddingMethod):
    '''Adds a constant. And more words.

    Second line.'''
    by: float = 0.5
    ablations = {"still": {"by": 0.0}}
    def fit(self, task: Task) -> None: ...
    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x + self.by
"""


@pytest.fixture
def plugin(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_own_methods_are_found_by_their_file_and_described_by_their_docstring():
    entry = Registry().entry("method", "clip")
    assert entry.origin == "methods/clip.py"
    assert entry.summary.startswith("Zero-shot cosine")
    assert not entry.error


def test_contracts_and_helpers_are_no_entries():
    names = {entry.name for kind in ("method", "dataset", "encoder") for entry in Registry().of(kind)}
    assert names.isdisjoint({"base", "feature_cache", "encode", "splitting", "encoders", "splits", "__init__"})
    assert {"random", "clip", "prototype", "linear_probe", "flexclip", "openmoji", "manifest", "open_clip"} <= names


def test_hyphens_and_underscores_are_alike():
    assert Registry().entry("encoder", "lite0-minilm") == Registry().entry("encoder", "lite0_minilm")


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(InputError, match="no method named 'flexclp'. Did you mean 'flexclip'"):
        Registry().entry("method", "flexclp")
    with pytest.raises(InputError, match="There are: .*clip"):
        Registry().entry("method", "zzzzzz")


def test_a_plugin_file_adds_its_class(plugin):
    registry = Registry([plugin("shifted.py", GOOD)])
    cls = registry.load("method", "shifted")
    assert issubclass(cls, Method)
    assert registry.entry("method", "shifted").summary == "Adds a constant. And more words."


def test_a_broken_plugin_shows_its_true_error_and_breaks_nothing_else(plugin):
    registry = Registry(
        [plugin("broken.py", GOOD + "\nraise RuntimeError('the shelf is empty')\n"), plugin("good.py", GOOD)]
    )
    assert registry.entry("method", "broken").error == "RuntimeError: the shelf is empty"
    assert registry.load("method", "good").__name__ == "Shifted"
    assert registry.load("method", "clip")
    with pytest.raises(InputError, match="RuntimeError: the shelf is empty"):
        registry.load("method", "broken")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module_at_all\n" + GOOD, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
        ("x = 1\n", "one public class .* was expected, found none"),
        (GOOD + GOOD.replace("Shifted", "Other"), "found Shifted, Other"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said(plugin, text, error):
    registry = Registry([plugin("odd.py", text)])
    with pytest.raises(InputError, match=error):
        registry.load("method", "odd")


def test_two_of_one_name_are_an_error_that_names_both(plugin):
    first, second = plugin("a/shifted.py", GOOD), plugin("b/shifted.py", GOOD)
    with pytest.raises(InputError, match="two methods are named 'shifted'") as error:
        Registry([first, second]).entry("method", "clip")
    assert str(first) in str(error.value) and str(second) in str(error.value)


def test_a_plugin_may_not_take_the_name_of_an_own_method(plugin):
    with pytest.raises(InputError, match="two methods are named 'clip'"):
        Registry([plugin("clip.py", GOOD)]).entry("method", "clip")


def test_a_missing_plugin_file_is_said():
    with pytest.raises(InputError, match="there is no such file"):
        Registry([Path("nowhere.py")]).of("method")


def test_the_code_digest_follows_the_source(plugin):
    one = Registry([plugin("one/shifted.py", GOOD)]).code_digest("method", "shifted")
    same = Registry([plugin("two/shifted.py", GOOD)]).code_digest("method", "shifted")
    other = Registry([plugin("three/shifted.py", GOOD.replace("x + self.by", "x - self.by"))]).code_digest(
        "method", "shifted"
    )
    assert one == same != other


def test_the_code_digest_follows_the_code_not_its_words(plugin):
    one = Registry([plugin("one/shifted.py", GOOD)]).code_digest("method", "shifted")
    words = GOOD.replace("Adds a constant", "Shifts").replace("return x", "# a comment\n        return  x")
    assert Registry([plugin("two/shifted.py", words)]).code_digest("method", "shifted") == one


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("by: float = 0.5", "by: float = 0.75"),
        ('ablations = {"still": {"by": 0.0}}', 'ablations = {"far": {"by": 9.0}}'),
        ("    by: float", "    search = {'by': (0.25, 0.5)}\n    by: float"),
        ("    by: float", "    resources = Resources(num_gpus=0.25)\n    by: float"),
    ],
)
def test_the_code_digest_does_not_follow_what_changes_no_number(plugin, old, new):
    """A cell has its parameters in full."""
    code = GOOD.replace("Modality,", "Modality, Resources,")
    assert old in code
    one, two = (Registry([plugin(f"{n}/shifted.py", text)]) for n, text in enumerate((code, code.replace(old, new))))
    assert one.code_digest("method", "shifted") == two.code_digest("method", "shifted")


def test_code_is_the_same_in_every_python(tmp_path):
    """3.12 writes quotes inside of f-strings in another way and has type parameters; 3.13 leaves out what is empty."""
    file = tmp_path / "code.py"
    file.write_text("def f(x, *, y=None) -> str:\n    return f\"{x!r:>{y}} {x['a']}\" if not y else ''\n")
    assert code_digest._code(file) == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x')],kwonlyargs=[arg(arg='y')],"
        "kw_defaults=[Constant()]),body=[Return(value=IfExp(test=UnaryOp(op=Not(),operand=Name(id='y',ctx=Load())),"
        "body=JoinedStr(values=[FormattedValue(value=Name(id='x',ctx=Load()),conversion=114,format_spec=JoinedStr("
        "values=[Constant(value='>'),FormattedValue(value=Name(id='y',ctx=Load()),conversion=-1)])),"
        "Constant(value=' '),FormattedValue(value=Subscript(value=Name(id='x',ctx=Load()),slice=Constant(value='a'),"
        "ctx=Load()),conversion=-1)]),orelse=Constant(value='')))],returns=Name(id='str',ctx=Load()))])"
    )


DIGESTS = """
import sys
from xshot_bench.benchmarks.registry import Registry
print(sys.modules["xshot_bench"].__file__)
print([Registry().code_digest("method", name) for name in ("flexclip", "vtclip", "clip_lora", "ridge")])
"""


def test_the_code_digest_does_not_depend_on_where_the_package_lies(tmp_path):
    """Home folders of a cluster are often links; methods in folders of their own share files with others."""
    (tmp_path / "xshot_bench").symlink_to(registry.ROOT)
    linked = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    plain = f"import runpy; runpy.run_path({str(registry.ROOT / 'run_bench.py')!r}, run_name='__mp_main__')"
    said = [
        subprocess.run([sys.executable, "-c", found + DIGESTS], capture_output=True, text=True, check=True).stdout
        for found in (linked, plain)
    ]
    (first, here), (second, there) = (each.splitlines() for each in said)
    assert (Path(first).parent, Path(second).parent) == (tmp_path / "xshot_bench", registry.ROOT)
    assert here == there


def test_the_code_digest_covers_what_is_imported_from_methods(plugin, monkeypatch, tmp_path):
    """base.py and with it task.py, which all methods import, and a module that some share."""
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    shutil.copytree(Path(base.__file__).parent, tmp_path / "methods")
    (tmp_path / "datasets" / "encoders").mkdir(parents=True)
    shared, task = tmp_path / "methods" / "shared.py", tmp_path / "methods" / "task.py"
    shared.write_text("FACTOR = 1")
    sharing = GOOD.replace("task: Task) -> None: ...", "task: Task):\n        from xshot_bench.methods import shared")
    own = [Registry([plugin(f"{n}/shifted.py", text)]) for n, text in enumerate((sharing, GOOD))]
    first = [each.code_digest("method", "shifted") for each in own]
    shared.write_text("FACTOR = 2")
    second = [each.code_digest("method", "shifted") for each in own]
    assert first[0] != second[0] and first[1] == second[1]
    task.write_text(task.read_text().replace("max(self.shots, 1)", "max(self.shots, 2)"))
    assert all(a != each.code_digest("method", "shifted") for a, each in zip(second, own, strict=True))


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from xshot_bench.benchmarks.listing import listing; list(listing([], False));"
        "sys.exit(' '.join({'torch', 'pandas', 'mlflow', 'transformers', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
