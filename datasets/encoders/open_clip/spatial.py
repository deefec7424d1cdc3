"""Spatial tokens in the joint space: each position of an image tower's map, taken through what follows the map.

That is well defined where everything after the map is either a mean or a choice over the positions, which one position
alone passes unchanged, or works on each position by itself (norms, projections), or is attention that can be asked from
each position. It is not where learnt queries pool the map: their answers are no places in the picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def no_tokens(visual: Any) -> str:
    """Why an image tower of open_clip has no spatial tokens in the joint space; empty if it has."""
    if _is_resnet(visual):
        return ""
    if _is_vit(visual):
        return "" if visual.attn_pool is None else "learnt queries pool its positions"
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        return f"nothing is known of towers of type {type(visual).__name__}"
    if getattr(trunk, "attn_pool", None) is not None or "pool" in dict(visual.head.named_children()):
        return "a learnt query pools its positions"
    return ""


def read(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The global feature ``[n,d]`` and the positions ``[n,h,w,d]`` of pictures, of a tower that has tokens."""
    if _is_resnet(visual):
        return _resnet(visual, batch)
    return _vit(visual, batch) if _is_vit(visual) else _timm(visual, batch)


def _is_vit(visual: nn.Module) -> bool:
    from open_clip.transformer import VisionTransformer

    return isinstance(visual, VisionTransformer)


def _is_resnet(visual: nn.Module) -> bool:
    from open_clip.modified_resnet import ModifiedResNet

    return isinstance(visual, ModifiedResNet)


def _vit(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Every patch after the last norm and the projection."""
    pooled, patches = visual._pool(visual.transformer(visual._embeds(batch)))
    if visual.final_ln_after_pool:  # then the pool has not seen the patches
        patches = visual.ln_post(patches)
    return pooled @ visual.proj, (patches @ visual.proj).unflatten(1, visual.grid_size)


def _resnet(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Attention pooling in which all positions ask, as CALIP has it: the mean's answer, and the others'."""
    hidden = visual.stem(batch)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        hidden = layer(hidden)
    pool = visual.attnpool
    positions = hidden.flatten(2).transpose(1, 2)
    positions = torch.cat([positions.mean(1, keepdim=True), positions], dim=1) + pool.positional_embedding

    def heads(projection: nn.Linear) -> Tensor:
        return projection(positions).unflatten(2, (pool.num_heads, -1)).transpose(1, 2)

    mixed = nn.functional.scaled_dot_product_attention(heads(pool.q_proj), heads(pool.k_proj), heads(pool.v_proj))
    answers = pool.c_proj(mixed.transpose(1, 2).flatten(2))
    return answers[:, 0], answers[:, 1:].unflatten(1, hidden.shape[2:])


def _timm(visual: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Every position of a timm trunk after the trunk's head and the projection."""
    trunk = visual.trunk
    features = trunk.forward_features(batch)
    pooled = visual.head(trunk.forward_head(features))
    if features.ndim == 3:  # tokens: a class token or none, then the patches
        patches = features[:, trunk.num_prefix_tokens :]
        positions = trunk.head(trunk.head_drop(trunk.fc_norm(patches)))
        return pooled, visual.head(positions).unflatten(1, _sides(trunk, patches.shape[1]))
    last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
    rows = features if last else features.permute(0, 2, 3, 1)
    single = rows.flatten(0, 2)[:, None, None] if last else rows.flatten(0, 2)[:, :, None, None]
    return pooled, visual.head(trunk.forward_head(single)).unflatten(0, rows.shape[:3])


def _sides(trunk: Any, patches: int) -> tuple[int, int]:
    """Rows and columns of a trunk's patches; a square where it does not say."""
    rows, columns = getattr(trunk.patch_embed, "grid_size", None) or (0, 0)
    return (rows, columns) if rows * columns == patches else (math.isqrt(patches), math.isqrt(patches))
