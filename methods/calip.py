"""CALIP: attention between texts and the places of an image, without parameters."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from xshot_bench.methods.base import PairMethod, Task

TEXTS = 512  # texts scored at once


class Calip(PairMethod):
    """Parameter-free attention (Guo et al., AAAI 2023), made into a score of image-text pairs; nothing is learnt.

    For an image f ``[d]`` with spatial tokens F ``[P,d]``, and a text g ``[d]``, all unit:

        score = f·g + β₂ f·g' + β₃ f'·g
        g' = Σ_p softmax_p(2 F g) F_p                         the image's places that the text attends to
        f' = mean_p(H) + max_p(H),  H = softmax_c(2 F Tᵀ) T    the classes that the places attend to

    In the paper g runs over the class prompts. Here it is any text of the gallery in the first and second term. The
    classes T ``[C,d]`` are the candidates' prompts: attention over the gallery would make a score depend on what else
    is searched. The paper searches β on the test set; ours were chosen on validation classes (docs/hyperparameters.md).
    β₂ = β₃ = 0 is ``clip``.

    text_update: β₂. image_update: β₃.
    """

    text_update: float = 0.1
    image_update: float = 0.2
    needs: ClassVar = frozenset({"joint", "class_text", "tokens"})
    ablations: ClassVar = {"notext": {"text_update": 0.0}, "noimage": {"image_update": 0.0}}
    search: ClassVar = {"text_update": (0.0, 0.03, 0.1), "image_update": (0.1, 0.2, 0.3, 0.5)}

    def fit(self, task: Task) -> None:
        self.prompts = task.class_text[task.candidates]

    def score(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            raise ValueError("CALIP needs the images' tokens")
        attended = torch.softmax(2 * tokens @ self.prompts.T, dim=2) @ self.prompts
        updated = image + self.image_update * (attended.mean(1) + attended.amax(1))
        seen = torch.einsum("npd,nd->np", tokens, image)
        scores = []
        for some in text.split(TEXTS):
            attention = torch.softmax(2 * tokens @ some.T, dim=1)
            scores.append(updated @ some.T + self.text_update * torch.einsum("npm,np->nm", attention, seen))
        return torch.cat(scores, dim=1)
