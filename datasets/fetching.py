"""Gets a dataset's folder from where it is published: by torchvision where that can, else it says what to get."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xshot_bench import InputError

ARCHIVES = (".gz", ".tar", ".tgz", ".zip")


@dataclass(frozen=True)
class Origin:
    """Where a dataset's folder comes from.

    folder: what it is called. needed: what must lie in it -> where that is to be had, the pictures first.
    torchvision: the class of torchvision.datasets that downloads it, "" where none can. laid_out: where in that
    class's root the folder's content then lies.
    """

    folder: str
    needed: Mapping[str, str]
    torchvision: str = ""
    laid_out: str = ""

    def root(self, given: Path) -> Path:
        """The dataset's folder: the given one, or the one of the usual name in it."""
        inner = given / self.folder
        return inner if inner.is_dir() and not any((given / name).exists() for name in self.needed) else given

    def missing(self, root: Path) -> dict[str, str]:
        """What the dataset's folder lacks -> where that is to be had."""
        return {name: where for name, where in self.needed.items() if not (root / name).exists()}


def fetch(name: str, origin: Origin, given: Path) -> Iterator[str]:
    """Complete the folder ``origin.folder`` in ``given`` as far as can be; yields lines that say what there is to do.

    What is there already is left as it is. Of a download that breaks off nothing is kept.
    `InputError` where it fails, with what to get by hand.
    """
    root = given / origin.folder
    pictures = next(iter(origin.needed))
    if origin.torchvision and pictures in origin.missing(root):
        yield f"{name}: torchvision downloads it to {root}"
        try:
            _download(origin, root)
        except Exception as error:  # whatever the server, the archive or the disk did
            reason = str(error).partition("\n")[0] or type(error).__name__
            by_hand = "\n".join(_lines(origin.missing(root), root))
            raise InputError(
                f"{name} cannot be downloaded ({reason}). Try again, or get by hand:\n{by_hand}"
            ) from error
    missing = origin.missing(root)
    if missing:
        yield f"{name}: to be got by hand:"
        yield from _lines(missing, root)
    else:
        yield f"{name} is complete. Give it to a run with --root {name}={root}"


def _lines(missing: Mapping[str, str], root: Path) -> Iterator[str]:
    return (f"  {root / name}  from {where}" for name, where in missing.items())


def _download(origin: Origin, root: Path) -> None:
    """Let torchvision download into a folder of its own, then put what it laid out where we want it."""
    from torchvision import datasets

    root.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # no member may lead outside the folder
    try:
        getattr(datasets, origin.torchvision)(str(place), download=True)
        root.mkdir(exist_ok=True)
        for path in (place / origin.laid_out).iterdir():
            if path.suffix not in ARCHIVES and not (root / path.name).exists():
                shutil.move(path, root / path.name)
    finally:
        tarfile.TarFile.extraction_filter = before
        shutil.rmtree(place, ignore_errors=True)  # torchvision would take what is half there for whole
