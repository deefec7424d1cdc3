"""How near generated features are to real ones of their class: Fréchet distance, and the nearest real neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from xshot_bench.methods._training import unit
from xshot_bench.methods.base import MODALITIES, Pairs, Task


def fidelity(task: Task, made: Pairs) -> dict[str, float]:
    """Generated features of source and target classes against real ones: the task's source items, and its shots.

    They are the items that the generator learnt from, for a task holds no others. For each side the means over its
    classes and the modalities: ``Frechet distance`` and ``nearest real``, between generated and real features (see
    `frechet` and `nearest`). ``… of real`` is what real features score among themselves: one half of a class against
    the other, and each item against the others of its class. A number is left out where no class has the items for it:
    one for the neighbour, two for distance and real neighbours, four for halves.
    """
    sides = {"source": (task.source, task.source_classes), "target": (task.support, task.target_classes)}
    found: dict[str, list[float]] = {}
    for side, (real, classes) in sides.items():
        for c in classes:
            for m in MODALITIES:
                for name, value in _compared(real[m][real.label == c], made[m][made.label == c]):
                    found.setdefault(f"{side} {name}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def frechet(x: Tensor, y: Tensor) -> float:
    """Squared Fréchet distance of two sets ``[n,d]``, ``[m,d]``, n, m ≥ 2, as Gaussians of diagonal covariance.

        ‖μₓ − μ_y‖² + Σⱼ (sₓⱼ − s_yⱼ)²        s: standard deviations

    That is ‖μₓ − μ_y‖² + tr(Cₓ + C_y − 2(CₓC_y)^½) (Dowson & Landau 1982; Heusel et al., NeurIPS 2017) for diagonal C:
    a class has fewer items than features have dimensions, so its full covariance cannot be estimated. Samples of one
    distribution score above 0, the more so the fewer they are: read it beside the distance of real halves.
    """
    means = (x.mean(0) - y.mean(0)).square().sum()
    return float(means + (x.std(0) - y.std(0)).square().sum())


def nearest(x: Tensor, among: Tensor | None = None) -> float:
    """The mean cosine of each row of ``x [n,d]`` to its nearest row of ``among [m,d]``; else to its nearest other."""
    if among is None:
        return float((unit(x) @ unit(x).T).fill_diagonal_(-torch.inf).amax(1).mean())
    return float((unit(x) @ unit(among).T).amax(1).mean())


def _compared(real: Tensor, made: Tensor) -> list[tuple[str, float]]:
    """The numbers of one class in one modality."""
    found = []
    if len(real) and len(made):
        found.append(("nearest real", nearest(made, real)))
    if len(real) > 1:
        found.append(("nearest real of real", nearest(real)))
    if len(real) > 1 and len(made) > 1:
        found.append(("Frechet distance", frechet(made, real)))
    if len(real) > 3:
        found.append(("Frechet distance of real", frechet(real[::2], real[1::2])))
    return found
