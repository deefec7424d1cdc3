"""The two kinds of methods that learn by gradient descent on cached features: heads and adapters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from xshot_bench.methods._stacking import StackedEmbeddingMethod, StackedMethod
from xshot_bench.methods._training import Samples, State, samples_of, side_by_side
from xshot_bench.methods.base import MODALITIES, Declined, Modality, PosteriorMethod, Task


class _TrainedMethod(StackedMethod):
    """Trains one network a draw, or one for each of a draw's ``groups`` of modalities, all side by side."""

    def __post_init__(self) -> None:
        self.state: dict[Modality, State] = {}  # the fitted network of each modality

    @property
    @abstractmethod
    def groups(self) -> Sequence[Sequence[Modality]]:
        """The modalities that each network of a draw is for."""

    @abstractmethod
    def samples(self, tasks: Sequence[Task]) -> Samples:
        """What is learnt from: the networks of the first draw, then those of the next."""

    @abstractmethod
    def learn(self, given: Samples) -> State:
        """The tensors ``[S, ...]`` of the trained networks."""

    def train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        learnt = self.learn(self.samples(tasks))
        for e, method in enumerate(fitted):
            method.state = {}
            for g, group in enumerate(self.groups):
                network = {name: part[e * len(self.groups) + g].detach().clone() for name, part in learnt.items()}
                method.state |= dict.fromkeys(group, network)


class HeadMethod(_TrainedMethod, PosteriorMethod):
    """A classifier of the candidate classes that starts at their texts and learns from their labelled items.

    Those are the shots, and in the generalised gallery the source items too. At X = 0 there are none to learn from
    (source items alone would teach that target classes do not occur), and it stays zero-shot classification.

    train_on: ``both`` trains one classifier on images and texts, for both; ``own`` one on each modality's items;
        ``image`` one on images, for both, as these methods were published.
    """

    train_on: Literal["both", "own", "image"] = "both"

    @abstractmethod
    def classify(self, state: State, x: Tensor) -> Tensor:
        """Class logits of ``x``: ``[S,n,d] -> [S,n,K]``, and ``[n,d] -> [n,K]`` with the state of one network."""

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return self.classify(self.state[modality], x)

    @property
    def groups(self) -> Sequence[Sequence[Modality]]:
        return [["image"], ["text"]] if self.train_on == "own" else [MODALITIES]

    def samples(self, tasks: Sequence[Task]) -> Samples:
        networks = []
        for task in tasks:
            labelled = task.labelled.of(task.candidates if task.shots else task.candidates[:0])
            trained_on: Sequence[Sequence[Modality]] = [["image"]] if self.train_on == "image" else self.groups
            networks += [samples_of(task, group, labelled, task.candidates) for group in trained_on]
        return side_by_side(networks)


class AdapterMethod(_TrainedMethod, StackedEmbeddingMethod):
    """A map of the features that learns, from all labelled items, to classify them by the class texts.

    The map is the same for all classes, so what it learns on source classes serves the target classes too, at X = 0 as
    well. Each class weighs the same, whether it has many items or one. The class texts themselves are not mapped.

    adapt: the modalities that are mapped, each by a map of its own. score_by: the mapped features are compared by
        ``cosine`` (the other modality's as they are, where it is not mapped), or by class ``posterior``.
    """

    adapt: Literal["image", "both"] = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.candidate_text = torch.empty(0, 0)

    @abstractmethod
    def map(self, state: State, x: Tensor) -> Tensor:
        """Unit embeddings of unit ``x``: ``[S,n,d] -> [S,n,d]``, and ``[n,d] -> [n,d]`` with one network's state."""

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return self.map(self.state[modality], x) if modality in self.state else x

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return self.embed(x, modality) @ self.candidate_text.T

    @property
    def groups(self) -> Sequence[Sequence[Modality]]:
        return [["image"], ["text"]] if self.adapt == "both" else [["image"]]

    def samples(self, tasks: Sequence[Task]) -> Samples:
        networks = []
        for task in tasks:
            labelled = task.labelled
            if not len(labelled):
                raise Declined("needs labelled items to learn from; there are none")
            classes, row = labelled.label.unique(return_inverse=True)
            weight = len(row) / len(classes) / torch.bincount(row)[row].to(labelled.image)
            given = (samples_of(task, group, labelled, classes) for group in self.groups)
            networks += [replace(one, weight=weight[None]) for one in given]
        return side_by_side(networks)

    def loss(self, state: State, part: Samples) -> Tensor:
        """Of a batch, ``[S]``: the cross-entropy of the scaled cosines between mapped items and class texts."""
        return part.entropy(part.scale * self.map(state, part.x) @ part.text.mT)

    def train(self, fitted: Sequence[Self], tasks: Sequence[Task]) -> None:
        super().train(fitted, tasks)
        for method, task in zip(fitted, tasks, strict=True):
            method.candidate_text = task.class_text[task.candidates]
