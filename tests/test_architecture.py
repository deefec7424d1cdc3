"""Imports run one way: run_bench -> benchmarks -> methods, datasets."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "methods": {"methods"},
    "datasets": {"datasets"},
    "benchmarks": {"benchmarks", "methods", "datasets"},
    "run_bench.py": {"benchmarks"},
    "__init__.py": set(),
}
FILES = sorted(
    path for name in MAY_IMPORT for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
)


def own_imports(file: Path) -> set[str]:
    """The parts of the project that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "xshot_bench"
                else [node.module]
            )
        found |= {name.split(".")[1] for name in names if name and name.startswith("xshot_bench.")}
    return found & {"methods", "datasets", "benchmarks", "run_bench", "tests"}


def test_there_are_files_to_check():
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file):
    part = file.relative_to(ROOT).parts[0]
    assert own_imports(file) <= MAY_IMPORT[part]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_nobody_imports_our_packages_by_their_bare_names(file):
    """A bare ``import datasets`` would be the library of that name, or nothing."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"methods", "datasets", "benchmarks"}
