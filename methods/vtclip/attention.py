"""Texts that look at an image: VT-CLIP's attention, written out plainly and in the form that is cheap to evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

NUMBERS = 4_000_000  # of the largest tensor that is made at once: 16 MB in float32


@dataclass(frozen=True)
class Shape:
    """Of a guide: length of the features, inner width of the attention, heads, layers and the decoder's extras."""

    features: int
    width: int
    heads: int
    layers: int
    self_attention: bool
    ffn: bool

    def is_cheap(self, positions: int) -> bool:
        """Cosines can be had without the guided texts, which are linear in the tokens' values, and it pays."""
        return self.layers == 1 and not self.ffn and 2 * self.heads * positions < self.features


class Attention(nn.Module):
    """softmax(Q Kᵀ/√w) V W_o of h heads of width w, with Q = x W_q, K = F W_k, V = F W_v; W_o starts at 0."""

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value = (_map(shape.features, shape.width, generator) for _ in range(3))
        self.out = nn.Parameter(torch.zeros(shape.width, shape.features))

    def weights(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Of the P positions, for each head and row of ``x [n or 1,K,d]``: ``[n,h,K,P]``; they sum to 1."""
        query, key = self._split(x @ self.query), self._split(tokens @ self.key)
        return torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)

    def values(self, tokens: Tensor) -> Tensor:
        """Of the positions of ``tokens [n,P,d]``: ``[n,h,P,w]``."""
        return self._split(tokens @ self.value)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        summary = self.weights(x, tokens) @ self.values(tokens)
        return summary.transpose(1, 2).flatten(2) @ self.out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention to the image and, as a transformer's decoder has them, attention among texts before it, FFN after it.

    Each adds to its input; the two of the decoder normalise it first (LayerNorm).
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.among = Attention(shape, generator) if shape.self_attention else None
        self.across = Attention(shape, generator)
        self.ffn = FeedForward(shape, generator) if shape.ffn else None

    def before(self, x: Tensor, texts: int) -> Tensor:
        """The rows as they look at the image: having looked at those after the first ``texts``, the context."""
        if self.among is None:
            return x
        seen = layer_norm(x, x.shape[-1:])
        return x + self.among(seen, seen[:, texts:])

    def forward(self, x: Tensor, texts: int, tokens: Tensor) -> Tensor:
        x = self.before(x, texts)
        x = x + self.across(x, tokens)
        return x if self.ffn is None else x + self.ffn(layer_norm(x, x.shape[-1:]))


class FeedForward(nn.Module):
    """Two linear maps with a GELU between, four times as wide; the second starts at 0."""

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.wide = _map(shape.features, 4 * shape.features, generator)
        self.bias = nn.Parameter(torch.zeros(4 * shape.features))
        self.narrow = nn.Parameter(torch.zeros(4 * shape.features, shape.features))

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x @ self.wide + self.bias) @ self.narrow


class Guide(nn.Module):
    """Visual-guided texts T' = T + α·O, where O is what the layers add to the texts T when they look at an image."""

    def __init__(self, shape: Shape, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.layers = nn.ModuleList(Layer(shape, generator) for _ in range(shape.layers))

    def forward(self, image: Tensor, texts: Tensor, context: Tensor, tokens: Tensor) -> Tensor:
        """Cosines ``[n,m]`` of images ``[n,d]`` and the texts ``[m,d]`` that have looked at their tokens ``[n,P,d]``.

        context ``[C,d]``: what texts attend to in the decoder's self-attention; a text's result does not depend on the
        other texts. In blocks of images, so that no tensor grows with n·m·d.
        """
        positions, features = tokens.shape[1:]
        cheap = self.shape.is_cheap(positions)
        compare = self.cheap if cheap else self.plain
        each = self.shape.heads * positions if cheap else (4 if self.shape.ffn else 1) * features
        rows = max(1, NUMBERS // (each * max(1, len(texts) + len(context))))
        blocks = zip(image.split(rows), tokens.split(rows), strict=True)
        return torch.cat([compare(some, texts, context, seen) for some, seen in blocks])

    def guided(self, texts: Tensor, context: Tensor, tokens: Tensor) -> Tensor:
        """T' ``[n,m,d]``, a text a row, for each image."""
        x = (torch.cat([texts, context]) if self.shape.self_attention else texts)[None]
        for layer in self.layers:
            x = layer(x, len(texts), tokens)
        return texts + self.alpha * (x[:, : len(texts)] - texts)

    def plain(self, image: Tensor, texts: Tensor, context: Tensor, tokens: Tensor) -> Tensor:
        """By the definition, from T' itself."""
        guided = self.guided(texts, context, tokens)
        return torch.einsum("nd,nmd->nm", image, guided) / guided.square().sum(-1).clamp_min(1e-12).sqrt()

    def cheap(self, image: Tensor, texts: Tensor, context: Tensor, tokens: Tensor) -> Tensor:
        """The same without T', for one layer without FFN.

        With the attention A_n ``[m,hP]`` (head and position as one axis), what the positions add U_n ``[hP,d]`` (their
        values times W_o) and B, the texts before they look at the image:

            ⟨g, T'⟩ = ⟨g, B⟩ + α A_n(U_n g),   ‖T'‖² = ‖B‖² + 2α Σ A_n∘(B U_nᵀ) + α² Σ (A_n U_n U_nᵀ)∘A_n

        U_n is not made either: its products are taken through the values, which are shorter.
        """
        layer = cast(Layer, self.layers[0])
        attention, heads = layer.across, self.shape.heads
        query = layer.before(torch.cat([texts, context])[None], len(texts))[:, : len(texts)]
        base = texts + self.alpha * (query[0] - texts)
        weight, value = attention.weights(query, tokens), attention.values(tokens)
        out = attention.out.unflatten(0, (heads, -1))
        through = (attention.out @ attention.out.mT).unflatten(0, (heads, -1)).unflatten(2, (heads, -1))

        toward_image = (value @ torch.einsum("hwd,nd->nhw", out, image)[..., None])[..., 0]
        toward_text = (base @ out.mT) @ value.mT
        half = torch.einsum("nhpw,hwgv->nhpgv", value, through)
        gram = torch.einsum("nhpgv,ngqv->nhpgq", half, value).flatten(3).flatten(1, 2)
        flat = weight.transpose(1, 2).flatten(2)

        product = image @ base.T + self.alpha * torch.einsum("nhmp,nhp->nm", weight, toward_image)
        square = base.square().sum(-1) + 2 * self.alpha * (weight * toward_text).sum((1, 3))
        square = square + self.alpha.square() * ((flat @ gram) * flat).sum(-1)
        return product / square.clamp_min(1e-12).sqrt()


def _map(inputs: int, outputs: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(inputs, outputs, generator=generator) / inputs**0.5)
