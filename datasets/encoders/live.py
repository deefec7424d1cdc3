"""An encoder's towers as modules that gradients pass through, for methods that learn inside of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xshot_bench import InputError

FILLER = "x"  # one token of every vocabulary; learnt vectors take its place


class TextTower(nn.Module):
    """Texts to features, with learnt token embeddings before a text's words where they are wanted (CoOp).

    tower: token ids ``[n,L]`` to features ``[n,d]``. tokens: texts to ids, each with as many marks of its start.
    embedding: the module of the tower that gives the ids' embeddings ``[n,L,w]``.
    """

    def __init__(self, tower: nn.Module, tokens: Callable[[list[str]], Tensor], embedding: nn.Module) -> None:
        super().__init__()
        self.tower, self.tokens = tower, tokens
        self._embedding = (embedding,)  # in a tuple it is not registered under a second name

    def forward(self, texts: Sequence[str], context: Tensor | None = None) -> Tensor:
        """Features ``[n,d]``, float32, not normalised; context ``[M,w]`` or ``[n,M,w]``. Text that is too long is cut.

        `InputError` where the tokenizer has no room for the context, or cuts its stand-ins into pieces.
        """
        if context is None or not context.shape[-2]:
            features: Tensor = self.tower(self.tokens(list(texts)))
            return features.float()
        count, vectors = context.shape[-2], context
        ids = self.tokens([f"{FILLER} " * count + text for text in texts])
        start = self._same(FILLER, "a")
        held = ids[:, start : start + count]
        if held.shape[1] < count or not (held == held[:1, :1]).all():
            raise InputError(f"this encoder's tokenizer cannot hold {count} context vectors before a text.")

        def put(_module: nn.Module, _ids: object, words: Tensor) -> Tensor:
            vectors_here = vectors.to(words).expand(len(words), -1, -1)
            return torch.cat([words[:, :start], vectors_here, words[:, start + count :]], dim=1)

        hook = self._embedding[0].register_forward_hook(put)
        try:
            return self.tower(ids).float()
        finally:
            hook.remove()

    def vectors(self, text: str) -> Tensor:
        """The embeddings of a text's tokens without the marks of its start and end, ``[M,w]``."""
        ids = self.tokens([text])
        words: Tensor = self._embedding[0](ids[:, self._same(FILLER, "a") : self._same(text, f"{text} {FILLER}")])
        return words[0].detach().float()

    def _same(self, one: str, other: str) -> int:
        """At how many positions, from the left, two texts have the same ids."""
        a, b = self.tokens([one, other])
        return int((a != b).int().argmax())


@dataclass(frozen=True)
class Live:
    """The towers of an encoder, frozen: what they give is what the encoder gives, and gradients pass through.

    image: a module from preprocessed pictures ``[n,3,h,w]``, as bytes, to features ``[n,d]``, float32. A method changes
    no weight; it may replace some for a call (``torch.func.functional_call``).
    """

    text: TextTower
    image: nn.Module

    def __post_init__(self) -> None:
        for tower in (self.text, self.image):
            tower.eval().requires_grad_(False)
