"""Low-rank updates of a tower's attention weights (LoRA; Hu et al., ICLR 2022), without a change of the tower."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

# q, k and v as the towers name them: torch's own and timm's in one matrix, transformers' and others' in three.
PACKED = re.compile(r"(^|\.)(in_proj_weight|qkv\.weight)$")
SINGLE = re.compile(r"(^|\.)(query|key|value|[qkv](_proj)?)\.weight$")

Updates = dict[str, tuple[Tensor, Tensor]]  # weight [out,in] -> down [g,r,in] and up [g,out/g,r]; g = 3 where packed


def updates_of(tower: nn.Module, rank: int, generator: torch.Generator) -> Updates:
    """The updates of every q, k and v: down is drawn Kaiming-uniformly, up is 0. There are none without attention."""
    found: Updates = {}
    for name, weight in tower.named_parameters():
        parts = 3 if PACKED.search(name) else 1
        if parts == 3 or SINGLE.search(name):
            rows, columns = weight.shape
            drawn = 2 * torch.rand(parts, rank, columns, generator=generator) - 1
            down = (drawn / columns**0.5).to(weight.device)
            found[name] = down, torch.zeros(parts, rows // parts, rank, device=weight.device)
    return found


def changed(
    tower: nn.Module, updates: Updates, scale: float, kept: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The weights ``W + scale·up·down``, to be used in a call; kept ``[in]``: dropout of the updates' input."""
    weights = {}
    for name, (down, up) in updates.items():
        weight = tower.get_parameter(name)
        change = up @ (down if kept is None else down * kept[name])
        weights[name] = weight + scale * change.flatten(0, 1).to(weight)
    return weights


def draw_kept(updates: Updates, share: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Which inputs of each update are kept, ``[in]``: 0, or 1 / (1 − share)."""
    return {
        name: ((torch.rand(down.shape[2], generator=generator) >= share) / (1 - share)).to(down)
        for name, (down, _) in updates.items()
    }
