"""A model of open_clip, cut in two modules that gradients pass through; each is the model without the other's tower."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from xshot_bench.datasets.encoders.live import Live, TextTower


def live(model: Any, tokens: Callable[[list[str]], Tensor], numbers: Callable[[Tensor], Tensor]) -> Live:
    return Live(TextTower(_Text(model), tokens, _embedding(model)), _Image(model, numbers))


class _Text(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = _without(model, {"visual"})

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(ids, normalize=False)
        return features


class _Image(nn.Module):
    def __init__(self, model: Any, numbers: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.numbers = _without(model, dict(model.named_children()).keys() - {"visual"}), numbers

    def forward(self, batch: Tensor) -> Tensor:
        features: Tensor = self.model.encode_image(self.numbers(batch), normalize=False)
        return features.float()


def _without(model: Any, children: set[str]) -> Any:
    """The same model, its weights shared, without some of its parts."""
    rest = copy.copy(model)
    rest._modules = {name: child for name, child in model._modules.items() if name not in children}
    return rest


def _embedding(model: Any) -> nn.Module:
    """What gives the embeddings of token ids: of open_clip's own text towers, or of one of transformers'."""
    text = getattr(model, "text", model)
    found: nn.Module = (
        text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    )
    return found
