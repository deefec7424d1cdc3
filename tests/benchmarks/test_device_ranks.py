"""What a GPU ranks is what the CPU ranks: the same integers, by tensors that lie here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import make_features, make_split

from xshot_bench.benchmarks import device_ranks, evidence, metrics, ranks
from xshot_bench.benchmarks.device_ranks import DeviceRanker
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge

BIG, TINY = float(np.finfo(np.float32).max), float(np.finfo(np.float32).smallest_subnormal)
ODD = 0.0, -0.0, TINY, -TINY, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 2.0, -1.0, BIG, -BIG
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def found(blocks, queries: int, k: int) -> list[tuple[list[int], list[int]]]:
    """Of each query the ranks of what is relevant, and the first items."""
    out: list = [None] * queries
    for block in blocks:
        for row, own, first in zip(block.rows, block.ranks, block.first(k), strict=True):
            assert out[row] is None
            out[row] = own.tolist(), first.tolist()
    return out


def check(scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, device: str = "cpu") -> None:
    queries, seed = len(scores), 3
    ranker, there = DeviceRanker(gallery_label, torch.device(device), seed), torch.from_numpy(scores).to(device)
    here = ranks.ranked(scores, query_label, gallery_label, seed)
    assert found(ranker.ranked(there, query_label), queries, 4) == found(here, queries, 4)
    pair = np.random.default_rng(0).integers(-1, scores.shape[1], queries)
    np.testing.assert_array_equal(ranker.pair_ranks(there, pair), metrics.pair_ranks(scores, pair, seed))


@pytest.mark.parametrize("device", DEVICES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_scores(device: str, data: st.DataObject) -> None:
    queries, items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    score = st.sampled_from(ODD) | st.floats(width=32, allow_nan=False, allow_infinity=False)
    numbers = data.draw(st.lists(score, min_size=queries * items, max_size=queries * items))
    labels = [np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))) for n in (queries, items)]
    check(np.array(numbers, np.float32).reshape(queries, items), *labels, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("digits", [0, 2, 9])
@pytest.mark.parametrize("chunk", [1, 10_000, 2**24])
def test_many_scores_however_many_at_once(digits, chunk, device, monkeypatch):
    monkeypatch.setattr(device_ranks, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    scores = np.round(rng.standard_normal((40, 3_000)), digits).astype(np.float32)
    check(scores, rng.integers(5, size=40), rng.integers(5, size=3_000), device)


@pytest.mark.parametrize("method", ["clip", "calip", "sm"])
def test_a_cell_is_judged_alike(method, monkeypatch):
    """By embeddings, by pairs and by posteriors."""
    features = make_features(noise=1.0)
    tokens = np.random.default_rng(0).standard_normal((len(features.label), 3, 16)).astype(np.float16)
    features = dataclasses.replace(features, tokens=tokens)
    episode = make_episode(features, make_split(features), Setting(1, 0, "all"))
    fitted = Registry().load("method", method)()
    fitted.fit(episode.task)
    expected = judge(fitted, episode)
    monkeypatch.setattr(evidence, "NEAR", ())
    numbers, ap, precision = judge(fitted, episode)
    assert (numbers, precision) == (expected[0], expected[2])
    assert ap.equals(expected[1])


def test_scores_must_be_finite_and_of_the_right_shape():
    ranker = DeviceRanker(np.zeros(3), torch.device("cpu"))
    with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
        list(ranker.ranked(torch.tensor([[0, 1, torch.nan], [0, 0, 0]]), np.zeros(2)))
    with pytest.raises(ValueError, match=r"shape \(3, 2\) where \(2, 3\)"):
        list(ranker.ranked(torch.zeros(3, 2), np.zeros(2)))
    with pytest.raises(ValueError, match="not finite"):
        ranker.pair_ranks(torch.tensor([[torch.inf, 0, 0]]), np.array([1]))


def test_nothing_to_rank():
    nothing, some = (DeviceRanker(np.zeros(items), torch.device("cpu")) for items in (0, 3))
    assert found(nothing.ranked(torch.zeros(2, 0), np.zeros(2)), 2, 4) == [([], []), ([], [])]
    assert not list(some.ranked(torch.zeros(0, 3), np.zeros(0)))
