"""VT-CLIP: class texts that look at the image before they are compared with it."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from xshot_bench.methods._training import Adam
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PairMethod, Pairs, Task
from xshot_bench.methods.calibration import posteriors, spread
from xshot_bench.methods.vtclip.attention import Guide, Shape


class VtClip(PairMethod):
    """VT-CLIP (Qiu et al., arXiv 2112.02399): visual-guided texts. A reconstruction from published descriptions.

    From the paper: both towers are frozen; texts are queries, the image's spatial tokens are keys and values of a
    cross-attention; a residual connection adds what it finds to the texts, which are then compared with the image's
    global feature. For an image g ``[d]`` with tokens F ``[P,d]`` and texts T ``[m,d]``, all unit rows:

        O = softmax_P((T W_q)(F W_k)ᵀ/√w) F W_v W_o,   score = cos(g, T + αO)

    There is no official code and the paper's settings could not be read, so that no number of this is the paper's. Ours
    are the rest: W_o = 0 at first (so training starts at zero-shot), the width, the loss for retrieval and all values
    below, chosen on validation classes (docs/hyperparameters.md). Trained with AdamW at a cosine rate on all labelled
    items, classes drawn equally often. At X = 0 it learns from the source items; any text can be compared, for the
    attention knows no classes.

    heads, width: of the attention; width is that of all heads together, 0 as wide as the features. layers,
    self_attention, ffn: a transformer decoder's; texts then attend to the class texts, not to the texts searched.
    residual: α is learnt, or fixed at its start ``alpha``.
    objective: cross-entropy over ``classes`` (the paper's); over the texts of a batch for each image and its images for
        each text, those of one class being equally right (``pairs``); the sum of ``both``; or what suits the task
        (``suited``): ``classes`` without source classes, which is the paper's few-shot classification, else ``both``.
    normalise: the paper's loss does not calibrate scores of different images to each other. So an image's ``mean`` (or
        log-sum-exp, ``lse``) score of fixed texts is subtracted: of the candidates' prompts and the shots' texts.
    score_by: the score of the ``pairs``, or the product of class ``posteriors``: the image's from its scores of the
        candidates' prompts, the text's from its plain cosines with them.
    """

    heads: int = 1
    width: int = 64
    layers: int = 1
    self_attention: bool = False
    ffn: bool = False
    residual: Literal["learnt", "fixed"] = "learnt"
    alpha: float = 1.0
    objective: Literal["suited", "classes", "pairs", "both"] = "suited"
    normalise: Literal["none", "mean", "lse"] = "mean"
    score_by: Literal["pairs", "posterior"] = "pairs"

    steps: int = 100
    batch: int = 32
    rate: float = 1e-2
    decay: float = 0.01

    needs: ClassVar = frozenset({"joint", "class_text", "tokens"})
    ablations: ClassVar = {
        "noguide": {"alpha": 0.0, "residual": "fixed"},
        "fixed": {"residual": "fixed"},
        "heads8": {"heads": 8},
        "layers2": {"layers": 2},
        "selfattention": {"self_attention": True},
        "ffn": {"ffn": True},
        "decoder": {"self_attention": True, "ffn": True, "heads": 8},
        "classes": {"objective": "classes"},
        "pairs": {"objective": "pairs"},
        "both": {"objective": "both"},
        "raw": {"normalise": "none"},
        "posterior": {"score_by": "posterior"},
    }
    search: ClassVar = {"rate": (1e-3, 3e-3, 1e-2), "alpha": (0.1, 0.3, 1.0, 3.0)}

    def fit(self, task: Task) -> None:
        labelled, width = task.labelled, self.width or task.class_text.shape[1]
        if not len(labelled):
            raise Declined("there are no labelled items to learn from")
        if width % self.heads:
            raise Declined(f"a width of {width} cannot be shared by {self.heads} heads")
        shape = Shape(task.class_text.shape[1], width, self.heads, self.layers, self.self_attention, self.ffn)
        self.guide = Guide(shape, self.alpha, task.generator("vtclip: initial weights")).to(task.class_text)
        self.scale = task.scale
        self.prompts = task.class_text[task.candidates]
        self.reference = torch.cat([self.prompts, task.support.text])
        self.loss = self._train(task, labelled)
        seen = task.source if len(task.source) else task.support
        self.spread = {m: spread(self._class_scores(seen[m], m, seen.tokens)) for m in MODALITIES}

    @torch.no_grad()
    def score(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        if self.score_by == "posterior":
            return self._posterior(image, "image", tokens) @ self._posterior(text, "text").T
        scores = self._guided(image, text, tokens)
        if self.normalise == "none":
            return scores
        usual = self._guided(image, self.reference, tokens)
        if self.normalise == "mean":
            return scores - usual.mean(1, keepdim=True)
        return scores - torch.logsumexp(self.scale * usual, 1, keepdim=True) / self.scale

    def diagnostics(self) -> dict[str, float]:
        return {"alpha": float(self.guide.alpha), "last loss": self.loss}

    def _guided(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            raise ValueError("VT-CLIP needs the images' tokens")
        return self.guide(image, text, self.prompts, tokens)

    def _class_scores(self, x: Tensor, modality: Modality, tokens: Tensor | None = None) -> Tensor:
        return x @ self.prompts.T if modality == "text" else self._guided(x, self.prompts, tokens)

    def _posterior(self, x: Tensor, modality: Modality, tokens: Tensor | None = None) -> Tensor:
        return posteriors(self._class_scores(x, modality, tokens), self.spread[modality])

    def _train(self, task: Task, labelled: Pairs) -> float:
        """All steps; the loss of the last batch."""
        classes, row = labelled.label.unique(return_inverse=True)
        texts, loss = task.class_text[classes], torch.zeros(())
        suited = "both" if len(task.source) else "classes"
        objective = suited if self.objective == "suited" else self.objective
        often = torch.bincount(row)[row].double().reciprocal().cpu()
        generator = task.generator("vtclip: batches")
        fixed = {"alpha"} if self.residual == "fixed" else set()
        learnt = [parameter for name, parameter in self.guide.named_parameters() if name not in fixed]
        optimiser = Adam(learnt, self.rate, decay=self.decay)
        for step in range(self.steps):
            at = torch.multinomial(often, self.batch, replacement=True, generator=generator).to(task.device)
            loss = self._loss(labelled.rows(at), row[at], texts, objective)
            optimiser.step(torch.autograd.grad(loss, learnt), (1 + math.cos(math.pi * step / self.steps)) / 2)
        self.guide.requires_grad_(False)
        return float(loss.detach())

    def _loss(self, pairs: Pairs, row: Tensor, texts: Tensor, objective: str) -> Tensor:
        """Of a batch whose items' classes are the rows ``[B]`` of ``texts [K,d]``."""
        if pairs.tokens is None:
            raise ValueError("VT-CLIP needs the images' tokens")
        asked = {"classes": texts, "pairs": pairs.text, "both": torch.cat([texts, pairs.text])}[objective]
        logits = self.scale * self.guide(pairs.image, asked, texts, pairs.tokens)
        loss = logits.new_zeros(())
        if objective != "pairs":
            loss = loss + cross_entropy(logits[:, : len(texts)], row)
        if objective != "classes":
            among = logits[:, len(asked) - len(row) :]
            same = (row[:, None] == row).to(logits)
            right = same / same.sum(1, keepdim=True)
            loss = loss + (cross_entropy(among, right) + cross_entropy(among.T, right)) / 2
        return loss
