"""The floor: what a ranking without any knowledge scores."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from xshot_bench.methods.base import EmbeddingMethod, Modality, Task

BYTES = 64  # the length of an embedding, one byte a component


class Random(EmbeddingMethod):
    """Random ranking, the floor: every item's embedding is a hash of its features, the modality and the draw."""

    needs: ClassVar = frozenset()

    def fit(self, task: Task) -> None:
        self.key = torch.randint(2**62, (1,), generator=task.generator("random"))

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        rows = (row.tobytes() for row in x.float().cpu().contiguous().numpy())
        key = self.key.cpu().numpy().tobytes()
        hashes = [hashlib.shake_256(key + modality.encode() + row).digest(BYTES) for row in rows]
        signed = np.frombuffer(b"".join(hashes), dtype=np.int8).reshape(len(x), BYTES)
        return torch.from_numpy(signed + np.float32(0.5)).to(x.device)
