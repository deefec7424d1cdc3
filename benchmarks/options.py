"""What some of the command line's options mean. `InputError` for what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xshot_bench import InputError
from xshot_bench.benchmarks.executors import Placement
from xshot_bench.benchmarks.executors.limits import Limits
from xshot_bench.datasets.workers import cores


def settings_of(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Method -> parameter -> value, from ``METHOD.PARAMETER=VALUE``."""
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, parameter = name.strip().partition(".")
        if not (equals and dot and method and parameter):
            raise InputError(
                f"--set {text!r} was not understood. Expected: METHOD.PARAMETER=VALUE, as flexclip.steps=200."
            )
        settings.setdefault(method.replace("-", "_"), {})[parameter] = value
    return settings


def roots_of(texts: Sequence[str]) -> dict[str, Path]:
    """Dataset -> folder; a folder given without a name is everybody's, under the name ""."""
    roots: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if equals and name.replace("-", "_").isidentifier():
            roots[name.replace("-", "_")] = Path(folder)
        else:
            roots[""] = Path(text)
    return roots


def placement_of(options: Mapping[str, Any], device: str) -> Placement:
    """Where cells run."""
    limits = Limits(options["cell_timeout"], options["cell_memory"])
    if options["executor"] == "ray":
        if ":" in device:
            raise InputError(f"--device {device}: with --executor ray, Ray chooses which GPU. Give --device cuda.")
        return Placement(options["jobs"] or 0, limits, "ray", options["address"])
    return Placement(options["jobs"] or at_once(device), limits)


def at_once(device: str) -> int:
    """How many cells run at once where nobody says: on a CPU as many as there are cores, on a GPU one."""
    return cores() if device == "cpu" else 1


def device_of(name: str) -> str:
    """The device by PyTorch's name for it; ``auto`` is a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--device {name!r} cannot be used here: {reason} Try --device cpu.") from None
    return name
