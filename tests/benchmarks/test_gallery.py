"""Large galleries are judged in blocks: the same answer to the last bit, in little memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import make_features, make_split

from xshot_bench.benchmarks import evidence as evidence_module
from xshot_bench.benchmarks import ranks, scoring
from xshot_bench.benchmarks.episode import Unlabelled, make_episode
from xshot_bench.benchmarks.evidence import SHORT_LIST, Evidence
from xshot_bench.benchmarks.metrics import average_precision, first_ranks, interpolated_precision, pair_ranks
from xshot_bench.benchmarks.protocol import DIRECTIONS, Setting
from xshot_bench.benchmarks.ranks import ranked
from xshot_bench.benchmarks.run import judge
from xshot_bench.benchmarks.scoring import score_blocks
from xshot_bench.methods.base import EmbeddingMethod, Modality, PairMethod, PosteriorMethod, Task


class Plain(EmbeddingMethod):
    def fit(self, task: Task) -> None: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x


class Pairwise(PairMethod):
    def fit(self, task: Task) -> None: ...

    def score(self, image: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        return 10 * image @ text.T


class Prompted(PosteriorMethod):
    def fit(self, task: Task) -> None:
        self.prompts = task.class_text[task.candidates]

    def logits(self, x: Tensor, modality: Modality) -> Tensor:
        return x @ self.prompts.T


def world(kind: str):
    """640 items to search and half of them to ask with; two tiles of queries and some more."""
    features = make_features(classes=160, per_class=6, noise=1.5)
    if kind == "tied":
        features = replace(features, **{name: np.sign(getattr(features, name)) for name in ("image", "text")})
    elif kind == "degenerate":
        features = replace(features, **{name: np.ones_like(getattr(features, name)) for name in ("image", "text")})
    return make_episode(features, make_split(features), Setting(1, 0, "all"))


@pytest.mark.parametrize("kind", ["random", "tied", "degenerate"])
@pytest.mark.parametrize("method", [Plain, Pairwise, Prompted])
def test_how_much_is_done_at_once_changes_no_bit(kind, method, monkeypatch):
    episode, fitted = world(kind), method()
    fitted.fit(episode.task)
    assert len(episode.queries.image) == 320 > 2 * scoring.TILE
    numbers, ap, precision = judge(fitted, episode)
    sizes = [len(block) for block in score_blocks(fitted, episode.task, episode.queries, episode.gallery, "t2i")]
    for budget, block, kept in ((1, 2**18, 2**31), (2**29, 1, 0), (4 * 640 * 256, 2**12, 1)):
        monkeypatch.setattr(scoring, "BUDGET", budget)
        monkeypatch.setattr(scoring, "KEPT", kept)
        monkeypatch.setattr(ranks, "BLOCK", block)
        again = judge(fitted, episode)
        assert again[0] == numbers and again[2] == precision
        assert again[1].equals(ap)
    if method is not Pairwise:
        blocks = score_blocks(fitted, episode.task, episode.queries, episode.gallery, "t2i")
        assert sizes == [320] and [len(block) for block in blocks] == [256, 64]


@pytest.mark.parametrize("width", [10, 512])
def test_a_score_does_not_depend_on_the_other_queries(width):
    """Also of one query or two, which a plain product rounds in another way."""
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(1100, width, generator=generator) for _ in range(2))
    task = world("random").task

    def scores(queries: int) -> np.ndarray:
        asked = Unlabelled(image[:queries], text[:queries])
        return np.concatenate(list(score_blocks(Plain(), task, asked, Unlabelled(image, text), "i2t")))

    whole = scores(1100)
    for queries in (1, 2, 128, 130, 1025):
        np.testing.assert_array_equal(scores(queries), whole[:queries])


def order(row: np.ndarray) -> np.ndarray:
    """The documented rule, by a full sort."""
    return np.lexsort((np.random.default_rng(0).permutation(len(row)), -row))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_many_ties_in_a_row(dtype, scale):
    rng = np.random.default_rng(3)
    scores = (scale * np.round(rng.standard_normal((6, 3_000)), 3)).astype(dtype)
    scores[4] = np.round(scores[4] / scale, 1)
    label = rng.integers(3, size=3_000)
    for block in ranked(scores, np.arange(6) % 3, label):
        first = block.first(25)
        for row, own, items in zip(block.rows, block.ranks, first, strict=True):
            expected = order(scores[row])
            np.testing.assert_array_equal(own, np.flatnonzero(label[expected] == row % 3) + 1)
            np.testing.assert_array_equal(items, expected[:25])


def test_rows_that_meet_in_one_value_keep_to_themselves():
    """The last of one ranking scores as the first two of the next, which are all relevant."""
    scores = np.array([[0.9, 0.8, 0.7, 0.5], [0.5, 0.1, 0.5, 0.2]], np.float32)
    (block,) = ranked(scores, np.zeros(2), np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(block.ranks, [[1, 3], [1, 2]])


@pytest.mark.parametrize("digits", [1, 6])
@pytest.mark.parametrize("near", [("cpu",), ()], ids=["CPU's", "GPU's"])
def test_one_ranking_serves_all_measures(digits, near, monkeypatch):
    """Also where it is made as on a GPU."""
    monkeypatch.setattr(evidence_module, "NEAR", near)
    rng = np.random.default_rng(5)
    episode = world("random")
    key = episode.answers.key["i2t"]
    scores = np.round(rng.random((len(key.query_label), len(key.gallery_label))), digits).astype(np.float32)
    labels = key.query_label, key.gallery_label
    for own in (key, replace(key, pair=None)):
        evidence = Evidence(own)
        for start in range(0, len(scores), 100):
            evidence.add(torch.from_numpy(scores[start : start + 100]))
        np.testing.assert_array_equal(evidence.ap, average_precision(scores, *labels))
        np.testing.assert_array_equal(evidence.short, average_precision(scores, *labels, SHORT_LIST))
        assert evidence.precision() == np.nanmean(interpolated_precision(scores, *labels), axis=0).round(5).tolist()
        rank = first_ranks(scores, *labels) if own.pair is None else pair_ranks(scores, own.pair)
        np.testing.assert_array_equal(evidence.rank, rank)
        first, right = evidence.first()
        for row, label, ids, relevant in zip(scores, key.query_label, first, right, strict=True):
            expected = order(row)[:10]
            assert ids == [key.gallery_ids[item] for item in expected]
            assert relevant == (key.gallery_label[expected] == label).tolist()


JUDGED = """
import sys
from pathlib import Path

import torch

from xshot_bench.benchmarks import bench_gallery, scoring
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge

def memory(name):
    return 1024 * int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

torch.set_num_threads(1)
bench_gallery.WIDTH, scoring.BUDGET = 64, 2**24
features = bench_gallery.made_up(Path(sys.argv[1]), 100_000, tokens=False)
made = bench_gallery.episode(features, 594, "cpu")
method = Registry().load("method", "clip")()
method.fit(made.task)
before = memory("VmRSS")
judge(method, made)
print(len(made.queries.image), memory("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_memory_stays_under_what_is_promised(tmp_path):
    """The gallery represented, a tile of scores, the features' pages and 64 MiB; all scores would be 235 MB."""
    done = subprocess.run([sys.executable, "-c", JUDGED, tmp_path], capture_output=True, text=True, check=True)
    queries, grown = map(int, done.stdout.split())
    assert queries == 594
    represented, tile, pages = 4 * 100_000 * 64, 4 * 100_000 * scoring.TILE, 2 * 2 * 100_000 * 64
    assert grown < represented + tile + pages + 2**26


def test_directions_take_the_same_pairs():
    """Tiles of pairs are of other sizes in each direction; what they hold is the same."""
    episode, method = world("random"), Pairwise()
    i2t, t2i = (
        np.concatenate(list(score_blocks(method, episode.task, episode.gallery, episode.gallery, way)))
        for way in DIRECTIONS
    )
    np.testing.assert_allclose(i2t, t2i.T, rtol=0, atol=1e-5)
