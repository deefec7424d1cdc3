"""The two linear heads that put pictures and texts into one space; ``train_heads.py`` trains them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from xshot_bench.datasets.encoders.lite0_minilm.towers import IMAGE_DIM, TEXT_DIM

KEPT_CLASSES = 10
BRIDGE_SCALE = 10.0
CLIP = 5.0
FIRST_SCALE = 10.0


class Heads(nn.Module):
    """Linear maps of both towers' outputs into one 384-d space; untrained, they are the ConSE bridge.

    The bridge (convex combination of semantic embeddings, Norouzi et al., ICLR 2014) puts a picture where its ten
    likeliest ImageNet classes' texts lie: ``e = sum_k p_k c_k``. Then, with m the mean of the class texts,

        image = A [clip((pooled - mean) / std, ±5) ; 10 (e - m)] + a        A starts as [0 | I]
        text  = B  10 (t - m) + b                                           B starts as I

    class_text ``[1000,384]``: the texts of the ImageNet classes. mean, std ``[1280]``: of the pooled features.
    """

    class_text: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, class_text: Tensor, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("class_text", class_text)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.image = nn.Linear(IMAGE_DIM + TEXT_DIM, TEXT_DIM)
        self.text = nn.Linear(TEXT_DIM, TEXT_DIM)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        for head in (self.image, self.text):
            nn.init.zeros_(head.bias)
        with torch.no_grad():
            self.image.weight.copy_(torch.eye(TEXT_DIM, IMAGE_DIM + TEXT_DIM).roll(IMAGE_DIM, 1))
            self.text.weight.copy_(torch.eye(TEXT_DIM))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The heads that ``state_dict`` was taken of, at any float type, in evaluation mode."""
        heads = cls(*(state[name].float() for name in ("class_text", "mean", "std")))
        heads.load_state_dict(state)
        return heads.eval().requires_grad_(False)

    def image_input(self, pooled: Tensor, logits: Tensor) -> Tensor:
        """Outputs of the image tower, ``[n,1280]`` and ``[n,1000]``, to the image head's input ``[n,1664]``."""
        likeliest, classes = logits.softmax(1).topk(KEPT_CLASSES, dim=1)
        weights = likeliest / likeliest.sum(1, keepdim=True)
        bridge = torch.einsum("nk,nkd->nd", weights, self.class_text[classes])
        standard = ((pooled - self.mean) / self.std).clamp(-CLIP, CLIP)
        return torch.cat([standard, BRIDGE_SCALE * (bridge - self.class_text.mean(0))], dim=1)

    def text_input(self, text: Tensor) -> Tensor:
        """Outputs ``[n,384]`` of the text tower to the text head's input ``[n,384]``."""
        return BRIDGE_SCALE * (text - self.class_text.mean(0))
