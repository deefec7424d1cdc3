"""CoOp: a learnt context before the class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from xshot_bench.methods._live import batches, descend, towers_of
from xshot_bench.methods._training import unit
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PosteriorMethod, Task, Towers


class CoOp(PosteriorMethod):
    """Context optimisation (Zhou et al., IJCV 2022): the words around a class name are learnt, both towers are frozen.

        t(c) = norm(text tower([v₁]…[v_M][name of c].)),  logits(x) = s·x·t(c)     v [M,w] token embeddings

    minimises the cross-entropy of labelled images through the text tower. From the paper: M = 16 vectors drawn from
    N(0, .02²) or started at the words of the prompt ("a photo of a": M = 4), shared by all classes or each class's own
    (``csc``), the class name at the end, a cosine rate, the last step kept. With the words' vectors and no step it is
    zero-shot classification.

    Ours: images are the cached features, so there is no augmentation. Items are compared by class posteriors, texts
    too, and with ``train_on = both`` texts are learnt from like images. A shared context is learnt from all labelled
    items, so on source classes too, and at X = 0; one of each class's own from the candidates' items, so it declines
    X = 0. A step takes some classes with all of their items; classes weigh alike. Adam in place of SGD needs fewer of
    the costly steps.

    start: ``words`` of the dataset's (first) prompt before the name, where it has any, else ``random``. context: M of
        the random ones. at_once: classes a step.
    """

    start: Literal["words", "random"] = "random"
    context: int = 16
    csc: bool = False
    train_on: Literal["both", "image"] = "both"
    steps: int = 50
    at_once: int = 16
    rate: float = 1e-2

    needs: ClassVar = frozenset({"joint", "class_text", "towers"})
    ablations: ClassVar = {
        "words": {"start": "words"},
        "csc": {"csc": True},
        "image": {"train_on": "image"},
        "untrained": {"steps": 0, "start": "words"},
    }
    search: ClassVar[Mapping[str, Sequence[Any]]] = {
        "rate": (1e-3, 3e-3, 1e-2),
        "train_on": ("both", "image"),
        "start": ("words", "random"),
    }

    def fit(self, task: Task) -> None:
        labelled = task.labelled.of(task.candidates) if self.csc else task.labelled
        classes = labelled.label.unique()
        if not len(classes):
            raise Declined("needs labelled items to learn from; there are none")
        if self.csc and len(classes) < len(task.candidates):
            raise Declined("a context of each class's own needs labelled items of each")
        towers = towers_of(task)
        first = self._first(task, towers)
        vectors = first.expand(len(classes), -1, -1).clone() if self.csc else first.clone()
        vectors.requires_grad_()

        def losses() -> Iterator[Tensor]:
            generator = task.generator("coop: batches")
            for part in batches(labelled.label, self.steps, self.at_once, generator):
                text = self._encode(towers, part.classes, vectors[part.place] if self.csc else vectors)
                modalities = MODALITIES[:1] if self.train_on == "image" else MODALITIES
                logits = (task.scale * labelled[m][part.row] @ text.to(labelled[m]).T for m in modalities)
                yield torch.stack([part.entropy(each) for each in logits]).mean()

        self.loss = descend([vectors], self.rate, 0.0, self.steps, losses)
        self.vectors = vectors.detach()
        self.moved = float((self.vectors - first).norm() / first.norm())
        with torch.no_grad():
            own = self.vectors[torch.searchsorted(classes, task.candidates)] if self.csc else self.vectors
            self.weight = task.scale * self._encode(towers, task.candidates, own).to(task.class_text)

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.weight.T

    def diagnostics(self) -> dict[str, float]:
        return {"last loss": self.loss, "context moved": self.moved}

    def _first(self, task: Task, towers: Towers) -> Tensor:
        """The context at first, ``[M,w]``."""
        words = towers.vectors(towers.templates[0].partition("{}")[0].strip())
        if self.start == "words" and len(words):
            return words
        drawn = torch.randn(self.context, words.shape[1], generator=task.generator("coop: first context"))
        return 0.02 * drawn.to(words)

    def _encode(self, towers: Towers, classes: Tensor, vectors: Tensor) -> Tensor:
        """The prompts' unit features ``[n,d]``."""
        end = towers.templates[0].partition("{}")[2]
        return unit(towers.text([towers.names[c] + end for c in classes.tolist()], vectors))
