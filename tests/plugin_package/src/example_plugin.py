"""A method that comes with an installed package."""

from torch import Tensor

from xshot_bench.methods.base import EmbeddingMethod, Modality, Task


class Backwards(EmbeddingMethod):
    """Ranks everything the wrong way round."""

    def fit(self, task: Task) -> None: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return -x if modality == "image" else x
