"""The two towers under their heads, as modules that gradients pass through."""

from __future__ import annotations

from torch import Tensor, nn

from xshot_bench.datasets.encoders.lite0_minilm.heads import Heads
from xshot_bench.datasets.encoders.lite0_minilm.towers import Towers, token_mean
from xshot_bench.datasets.encoders.live import Live, TextTower


def live(towers: Towers, heads: Heads) -> Live:
    text = towers.text_tower[1]
    embedding = text.get_submodule("embeddings.word_embeddings")
    return Live(TextTower(_Text(text, heads), towers.ids, embedding), _Image(towers, heads))


class _Text(nn.Module):
    def __init__(self, tower: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.tower, self.heads = tower, heads

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.heads.text(self.heads.text_input(token_mean(self.tower, ids)))
        return features


class _Image(nn.Module):
    def __init__(self, towers: Towers, heads: Heads) -> None:
        super().__init__()
        self.tower, self.heads, self.numbers = towers.image_tower, heads, towers.numbers

    def forward(self, batch: Tensor) -> Tensor:
        pooled = self.tower.forward_head(self.tower.forward_features(self.numbers(batch)), pre_logits=True)
        features: Tensor = self.heads.image(self.heads.image_input(pooled, self.tower.classifier(pooled)))
        return features
