"""One scoring rule: cosine, or the dot product of calibrated posteriors; in blocks or at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import make_features, make_split

from xshot_bench.benchmarks import scoring
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.scoring import Representation, ScoringError, score_blocks
from xshot_bench.methods.base import EmbeddingMethod, Modality, PairMethod, PosteriorMethod, Task

FEATURES = make_features()
EPISODE = make_episode(FEATURES, make_split(FEATURES), Setting(1, 0, "all"))


class Plain(EmbeddingMethod):
    factor: float = 1.0

    def fit(self, task: Task) -> None: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return self.factor * x


class Cosines(PairMethod):
    def fit(self, task: Task) -> None: ...

    def score(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        return image @ text.T


class Prompted(PosteriorMethod):
    factor: float = 1.0
    shift: float = 0.0

    def fit(self, task: Task) -> None:
        self.prompts = task.class_text[task.candidates]

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return self.factor * x @ self.prompts.T + self.shift


def scores(method, direction="i2t") -> np.ndarray:
    method.fit(EPISODE.task)
    return np.concatenate(list(score_blocks(method, EPISODE.task, EPISODE.queries, EPISODE.gallery, direction)))


def test_embeddings_are_compared_by_cosine_whatever_their_length():
    images, texts = EPISODE.queries.image[:].numpy(), EPISODE.gallery.text[:].numpy()
    assert np.allclose(scores(Plain(factor=7.0)), images @ texts.T, atol=1e-6)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_pair_scores_of_cosines_are_the_embeddings_scores(direction):
    assert np.allclose(scores(Cosines(), direction), scores(Plain(), direction), atol=1e-6)


@pytest.mark.parametrize("method", [Plain, Cosines, Prompted])
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_blocks_change_nothing(method, direction, monkeypatch):
    at_once = scores(method(), direction)
    for name, size in {"ROWS": 3, "TILE": 2, "PAIR_IMAGES": 3, "PAIR_TEXTS": (4, 5)}.items():
        monkeypatch.setattr(scoring, name, size)
    assert np.allclose(scores(method(), direction), at_once, atol=1e-6)


def test_posterior_scores_are_probabilities_of_agreement():
    assert (scores(Prompted()) > 0).all() and (scores(Prompted()) <= 1).all()
    method = Prompted()
    method.fit(EPISODE.task)
    posterior = Representation(method, EPISODE.task, "image")(EPISODE.queries.image[:])
    assert torch.allclose(posterior.sum(1), torch.ones(len(posterior)))


def test_calibration_takes_out_scale_and_offset():
    """A method that reports its logits in other units is the same method."""
    assert np.allclose(scores(Prompted(factor=50.0, shift=3.0)), scores(Prompted()), atol=1e-5)


class Wrong(EmbeddingMethod):
    what: str = "nan"

    def fit(self, task: Task) -> None: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return {"nan": x * float("nan"), "rows": x[1:], "vector": x[:, 0], "list": x.tolist()}[self.what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "not finite"),
        ("rows", r"where \[\d+, e\] was expected"),
        ("vector", "expected"),
        ("list", "returned list"),
    ],
)
def test_outputs_that_cannot_be_ranked_are_said(what, message):
    with pytest.raises(ScoringError, match=message):
        scores(Wrong(what=what))


def test_calibration_without_a_source_is_on_the_shots_and_without_these_on_the_prompts():
    task = EPISODE.task
    none = task.source_classes[:0]
    shots = replace(task, source=task.source.of(none), source_classes=none)
    nothing = replace(shots, support=task.support.of(none), shots=0)
    for known, x in ((shots, task.support.image), (nothing, task.class_text)):
        method = Prompted()
        method.fit(known)
        logits = x @ task.class_text[task.candidates].T
        spread = (logits - logits.mean(1, keepdim=True)).square().mean().sqrt()
        torch.testing.assert_close(Representation(method, known, "image").spread, spread)
