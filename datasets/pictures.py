"""Pictures from other people's files: the one way to decode them, and the check that finds all bad ones beforehand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from xshot_bench.datasets._candidates import Candidate

VERSION = 1  # raise it when other pictures are found good

Checked = tuple[int, int, str]  # size in bytes, time of the last change in ns, SHA-256 (hex)


def decode(content: bytes) -> Image.Image:
    """The whole picture, upright, as RGB or RGBA."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 bits a channel")
    if upright.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255
        return Image.fromarray((np.asarray(upright, float) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    transparent = upright.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in upright.info
    return upright.convert("RGBA" if transparent else "RGB")


def check_pictures(root: Path, found: Sequence[Candidate], cache: Path | None = None) -> None:
    """Decode each candidate's picture once and note in it what is wrong, or else the SHA-256 (hex) of the file.

    Good pictures are remembered in ``cache``: while size and time stay the same they are not read again.
    """
    memory = _Memory(root, cache)
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        list(pool.map(lambda candidate: _check(root, candidate, memory), found))
    memory.save()


def find_pictures(root: Path, found: Sequence[Candidate]) -> None:
    """Note in each candidate that its picture is missing or empty, or else its size, by which a change is told.

    For published sets that are too large to be read beforehand: folders are listed, and no picture is opened.
    """
    folders: dict[str, dict[str, int]] = {}
    for candidate in found:
        shown = repr(candidate.file[:200])
        folder, _, name = candidate.file.rpartition("/")
        if candidate.problem:
            continue
        if candidate.file.startswith("/") or ".." in candidate.file.split("/"):
            candidate.problem = f"{shown} leads outside the folder"
            continue
        if folder not in folders:
            folders[folder] = _sizes(root / folder)
        size = folders[folder].get(name)
        candidate.picture = str(size or "")
        if not size:
            candidate.problem = f"there is no file {shown}" if size is None else f"{shown} is empty"


def _sizes(folder: Path) -> dict[str, int]:
    """File name -> size in bytes, of the files of a folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def _check(root: Path, candidate: Candidate, memory: _Memory) -> None:
    if candidate.problem:
        return
    shown = repr(candidate.file[:200])
    try:
        path = (root / candidate.file).resolve()
        if not path.is_relative_to(root.resolve()):
            candidate.problem = f"{shown} leads outside the folder"
        elif not path.is_file():
            candidate.problem = f"there is no file {shown}"
        else:
            candidate.picture = memory.known(path) or _digest(path, memory)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        candidate.problem = f"{shown} has more than the {Image.MAX_IMAGE_PIXELS} pixels that are safe to decode"
    except UnidentifiedImageError:
        candidate.problem = f"{shown} is not a picture of a known format"
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        candidate.problem = f"{shown} cannot be read ({reason})"


def _digest(path: Path, memory: _Memory) -> str:
    about = path.stat()
    content = path.read_bytes()
    decode(content)
    digest = hashlib.sha256(content).hexdigest()
    memory.checked[str(path)] = (about.st_size, about.st_mtime_ns, digest)
    return digest


class _Memory:
    """What is known of a folder's pictures from earlier checks: a JSON file in the cache."""

    def __init__(self, root: Path, cache: Path | None) -> None:
        self.checked: dict[str, Checked] = {}
        self._path = cache and cache / "pictures" / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()}.json"
        self._before: dict[str, Checked] = {}
        if self._path and self._path.is_file():
            try:
                content = json.loads(self._path.read_bytes())
                if content["version"] == VERSION:
                    self._before = {
                        str(path): (int(size), int(time), str(digest))
                        for path, (size, time, digest) in content["checked"].items()
                    }
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass  # it is made again

    def known(self, path: Path) -> str | None:
        """The SHA-256 of a picture that was good and has not changed since."""
        before = self._before.get(str(path))
        about = path.stat()
        return before[2] if before and before[:2] == (about.st_size, about.st_mtime_ns) else None

    def save(self) -> None:
        """Keep what was found; a cache that cannot be written to is no reason to stop."""
        if not self._path or not self.checked:
            return
        content = json.dumps({"version": VERSION, "checked": self._before | self.checked})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(dir=self._path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            Path(fresh).replace(self._path)
        except OSError:
            pass
