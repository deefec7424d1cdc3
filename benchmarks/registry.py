"""Finds methods, datasets and encoders: files of our folders, a user's files, and installed packages' entry points.

What is found is described from its source text; it is imported only when it is used.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Literal

from xshot_bench import InputError
from xshot_bench.benchmarks.code_digest import code_digest

Kind = Literal["method", "dataset", "encoder"]
KINDS: tuple[Kind, ...] = ("method", "dataset", "encoder")
ROOT = Path(__file__).resolve().parent.parent
FOLDERS: dict[Kind, str] = {"method": "methods", "dataset": "datasets", "encoder": "datasets/encoders"}


@dataclass(frozen=True)
class Entry:
    """One thing that can be asked for by name.

    module: a dotted module name, a path of a file, or ``module:attribute`` for an entry point.
    origin: what to tell the user of where it comes from. error: why it cannot be used, else empty.
    """

    kind: Kind
    name: str
    module: str
    origin: str
    summary: str = ""
    error: str = ""


class Registry:
    """All entries of one invocation. ``plugins`` are files of the user's, each with one class of a known kind."""

    def __init__(self, plugins: Sequence[Path] = ()) -> None:
        self.plugins = tuple(Path(p).resolve() for p in plugins)
        self._classes: dict[tuple[Kind, str], type] = {}

    @cached_property
    def entries(self) -> dict[tuple[Kind, str], Entry]:
        """Every entry by kind and name. Two of one name are an `InputError` that names both origins."""
        found: dict[tuple[Kind, str], Entry] = {}
        for entry in (*_own_entries(), *self._plugin_entries(), *_installed_entries()):
            other = found.setdefault((entry.kind, entry.name), entry)
            if other.origin != entry.origin:
                raise InputError(
                    f"two {entry.kind}s are named {entry.name!r}: {other.origin} and {entry.origin}. "
                    "Rename one of them or leave one out."
                )
        return found

    def of(self, kind: Kind) -> list[Entry]:
        """The entries of one kind, by name."""
        return sorted((e for e in self.entries.values() if e.kind == kind), key=lambda e: e.name)

    def entry(self, kind: Kind, name: str) -> Entry:
        """The entry named ``name``; `InputError` with a suggestion where there is none."""
        entry = self.entries.get((kind, canonical(name)))
        if entry is None:
            names = [e.name for e in self.of(kind)]
            close = difflib.get_close_matches(canonical(name), names, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}."
            raise InputError(f"there is no {kind} named {name[:80]!r}. {hint}")
        return entry

    def load(self, kind: Kind, name: str) -> type:
        """Import the entry and return its class; `InputError` with the true error where that fails."""
        entry = self.entry(kind, name)
        key = (kind, entry.name)
        if key not in self._classes:
            try:
                self._classes[key] = _load(entry)
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"the {kind} {entry.name!r} ({entry.origin}) cannot be imported: {_describe(error)}"
                ) from error
        return self._classes[key]

    def code_digest(self, kind: Kind, name: str) -> str:
        """SHA-256 (hex) of the entry's code (code_digest.py), so that a changed method is run again."""
        return code_digest(self.load(kind, name), ROOT)

    def _plugin_entries(self) -> Iterator[Entry]:
        for path in self.plugins:
            if not path.is_file():
                raise InputError(f"--plugin {path}: there is no such file. Give the path of a Python file.")
            name, origin = canonical(path.stem), str(path)
            try:
                cls = _one_class(_import_file(path))
                yield Entry(_kind_of(cls), name, origin, origin, _first_line(cls.__doc__))
            except (Exception, SystemExit) as error:
                yield Entry(_kind_in_source(path) or "method", name, origin, origin, error=_describe(error))


def canonical(name: str) -> str:
    """``lite0-minilm`` and ``lite0_minilm`` are the same name."""
    return name.strip().replace("-", "_")


def _own_entries() -> Iterator[Entry]:
    for kind, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).iterdir()):
            file = path / "__init__.py" if path.is_dir() else path
            if path.name.startswith(("_", ".")) or path.stem == "base" or file.suffix != ".py" or not file.is_file():
                continue
            entry = _describe_file(kind, path.stem, file, f"{folder}/{path.name}")
            if entry.error or _kind_in_source(file) == kind:
                module = ".".join(["xshot_bench", *Path(folder).parts, path.stem])
                yield Entry(kind, entry.name, module, entry.origin, entry.summary, entry.error)


def _installed_entries() -> Iterator[Entry]:
    for kind in KINDS:
        for point in importlib.metadata.entry_points(group=f"xshot_bench.{kind}s"):
            package = f"package {point.dist.name}" if point.dist else "an installed package"
            found = Entry(kind, canonical(point.name), point.value, f"{package} ({point.value})")
            try:
                cls = _load(found)
                yield Entry(kind, found.name, found.module, found.origin, _first_line(cls.__doc__))
            except (Exception, SystemExit) as error:
                yield Entry(kind, found.name, found.module, found.origin, error=_describe(error))


def _describe_file(kind: Kind, name: str, file: Path, origin: str) -> Entry:
    """What the source text says, without running it: the class's first line, a syntax error, a missing import."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        return Entry(kind, name, str(file), origin, error=_describe(error))
    docs = [ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef) and _base_kind(node)]
    missing = next((m for m in _imported(tree) if not _can_be_found(m)), None)
    error_text = f"ModuleNotFoundError: No module named {missing!r}" if missing else ""
    return Entry(kind, name, str(file), origin, _first_line(docs[-1] if docs else None), error_text)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level packages that a module imports as it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _can_be_found(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _base_kind(node: ast.ClassDef) -> Kind | None:
    """The kind of a class by the name of its base: ...Method, ...Dataset or ...Encoder."""
    for base in node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        for kind in KINDS:
            if name.endswith(kind.capitalize()):
                return kind
    return None


def _kind_in_source(file: Path) -> Kind | None:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None
    kinds = [_base_kind(node) for node in tree.body if isinstance(node, ast.ClassDef)]
    return next((kind for kind in kinds if kind), None)


def _load(entry: Entry) -> type:
    if entry.module.endswith(".py"):
        return _one_class(_import_file(Path(entry.module)))
    module, _, attribute = entry.module.partition(":")
    loaded = importlib.import_module(module)
    cls = getattr(loaded, attribute) if attribute else _one_class(loaded)
    if _kind_of(cls) != entry.kind:
        raise TypeError(f"{cls.__name__} is a {_kind_of(cls)}, not a {entry.kind}")
    return cls


def _import_file(path: Path) -> ModuleType:
    name = f"xshot_bench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _kinds() -> dict[Kind, type]:
    from xshot_bench.datasets.base import Dataset
    from xshot_bench.datasets.encoders.base import Encoder
    from xshot_bench.methods.base import Method

    return {"method": Method, "dataset": Dataset, "encoder": Encoder}


def _kind_of(cls: type) -> Kind:
    for kind, base in _kinds().items():
        if issubclass(cls, base):
            return kind
    raise TypeError(f"{cls.__name__} derives from none of Method, Dataset and Encoder")


def _one_class(module: ModuleType) -> type:
    """The one class of a known kind that the module itself defines."""
    bases = tuple(_kinds().values())
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, bases)
        and not value.__name__.startswith("_")
        and not inspect.isabstract(value)
    ]
    if len(own) != 1:
        names = ", ".join(cls.__name__ for cls in own) or "none"
        raise TypeError(f"one public class that derives from Method, Dataset or Encoder was expected, found {names}")
    return own[0]


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
