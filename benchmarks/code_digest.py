"""What a method's code is known by: the same wherever it lies, in every version of Python, whatever its words are."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMED = frozenset({"ablations", "components", "search", "resources"})  # what a class says of its parameters and cells


def code_digest(cls: type, root: Path) -> str:
    """SHA-256 (hex) of a class's own files and of the modules of ``root/methods`` that these import, directly or not.

    Not covered is what changes no number of a method with given parameters: comments, docstrings and layout, the
    defaults, switches and search of the parameters, and what a cell takes of a machine.
    """
    path = Path(inspect.getfile(cls)).resolve()  # as the shared ones are, or a file may count twice
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for file in [*files, *sorted(_shared(files, root) - set(files))]:
        digest.update(file.name.encode() + b"\0" + _code(file, cls.__mro__).encode())
    return digest.hexdigest()


def _shared(files: Sequence[Path], root: Path) -> set[Path]:
    """The files of ``methods/`` that these files import, anywhere in them, and those that they import in turn."""
    found: set[Path] = set()
    todo = list(files)
    while todo:
        new = set(_imports_of_methods(ast.parse(todo.pop().read_bytes()), root)) - found
        found |= new
        todo += new
    return found


def _imports_of_methods(tree: ast.Module, root: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, *parts = name.split(".")
            if package == "xshot_bench" and parts[:1] == ["methods"]:
                place = root.joinpath(*parts)
                yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def _code(file: Path, methods: Sequence[type] = ()) -> str:
    """A file's code in a normal form, without docstrings, and without what these classes only say."""
    tree, names = ast.parse(file.read_bytes()), {cls.__name__ for cls in methods}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body[0] = ast.Pass()
        if isinstance(node, ast.JoinedStr):  # 3.12 puts an empty piece after a format in a format
            node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        if isinstance(node, ast.ClassDef) and node.name in names:
            node.body = [part for part in node.body if not _is_said(part)]
    return _text(tree)


def _text(node: object) -> str:
    """A syntax tree, written out. What is empty is left out, as newer Pythons have fields that older ones have not."""
    if isinstance(node, ast.AST):
        fields = (f"{name}={_text(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(fields)})"
    return f"[{','.join(map(_text, node))}]" if isinstance(node, list) else repr(node)


def _is_said(part: ast.stmt) -> bool:
    """Whether it is a parameter in a method's class, or what the class says of its parameters and cells."""
    if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
        return True
    targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id in NAMED for target in targets)
