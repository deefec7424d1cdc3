"""VT-CLIP: class texts that look at the image before they are compared with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.func import stack_module_state

from xshot_bench.methods._stacking import StackedMethod
from xshot_bench.methods._training import Adam
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PairMethod, Task
from xshot_bench.methods.calibration import posteriors, spread
from xshot_bench.methods.vtclip.attention import Guide, Shape
from xshot_bench.methods.vtclip.training import Lesson, Objective


class VtClip(StackedMethod, PairMethod):
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
    objective: Objective = "suited"
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

    def train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        lessons = [Lesson.of(task, self._guide(task), self.objective) for task in tasks]
        state, _ = stack_module_state([lesson.guide for lesson in lessons])
        fixed = {"alpha"} if self.residual == "fixed" else set()
        learnt = [parameter for name, parameter in state.items() if name not in fixed]
        optimiser = Adam(learnt, self.rate, decay=self.decay)
        losses = torch.zeros(len(tasks))
        for step in range(self.steps):
            drawn = zip(*(lesson.batch(self.batch) for lesson in lessons), strict=True)
            losses = torch.vmap(lessons[0].loss)(state, tuple(map(torch.stack, drawn)))
            gradients = torch.autograd.grad(losses.sum(), learnt)
            optimiser.step(gradients, (1 + math.cos(math.pi * step / self.steps)) / 2)
        for i, (method, task, lesson) in enumerate(zip(fitted, tasks, lessons, strict=True)):
            lesson.guide.load_state_dict({name: parameter[i] for name, parameter in state.items()})
            method._keep(task, lesson.guide.requires_grad_(False), float(losses[i].detach()))

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

    def _guide(self, task: Task) -> Guide:
        width = self.width or task.class_text.shape[1]
        if width % self.heads:
            raise Declined(f"a width of {width} cannot be shared by {self.heads} heads")
        shape = Shape(task.class_text.shape[1], width, self.heads, self.layers, self.self_attention, self.ffn)
        return Guide(shape, self.alpha, task.generator("vtclip: initial weights")).to(task.class_text)

    def _keep(self, task: Task, guide: Guide, loss: float) -> None:
        """What scoring needs."""
        self.guide, self.loss, self.scale = guide, loss, task.scale
        self.prompts = task.class_text[task.candidates]
        self.reference = torch.cat([self.prompts, task.support.text])
        seen = task.source if len(task.source) else task.support
        self.spread = {m: spread(self._class_scores(seen[m], m, seen.tokens)) for m in MODALITIES}
