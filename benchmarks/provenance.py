"""Where and with what results were computed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from xshot_bench.benchmarks.records import Provenance

PACKAGES = (
    "xshot-bench",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "timm",
    "transformers",
    "open_clip_torch",
    "pillow",
)
ROOT = Path(__file__).resolve().parent.parent


def provenance(device: str) -> Provenance:
    """The provenance of a result finished now."""
    commit, dirty = git_state()
    return Provenance(
        commit=commit,
        dirty=dirty,
        packages=_packages(),
        hardware=_hardware(device),
        device=device,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@lru_cache(maxsize=1)
def git_state() -> tuple[str, bool]:
    """The commit of our own checkout and whether files differ from it; ("", False) where it is no git checkout."""
    if not (ROOT / ".git").exists():
        return "", False
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["git", "-C", str(ROOT), *arguments],  # noqa: S607 - git is the user's own
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@lru_cache
def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
