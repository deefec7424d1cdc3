"""AP and ranks against the definition, scikit-learn, trec_eval and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from xshot_bench.benchmarks.metrics import (
    Cutoff,
    average_precision,
    expected_random_ap,
    expected_random_map,
    first_items,
    first_ranks,
    interpolated_precision,
    pair_ranks,
)

MAX = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).smallest_subnormal)
NEIGHBOURS, AROUND_TWO = (
    [float(np.nextafter(np.float32(value), np.float32(way))) for way in (0, value, 9)] for value in (1, 2)
)


def ranking(scores: np.ndarray, tie_seed: int = 0) -> np.ndarray:
    """Positions of the gallery in the order of one row: the documented rule, by a full sort."""
    place = np.random.default_rng(tie_seed).permutation(len(scores))
    return np.lexsort((place, -scores))


def untied(scores: np.ndarray) -> np.ndarray:
    """Scores of the same rankings without ties, for peers that treat ties in ways of their own."""
    out = np.empty(scores.shape)
    for row, own in zip(out, scores, strict=True):
        row[ranking(own)] = np.arange(len(own), 0, -1)
    return out


def by_definition(scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray) -> list[float]:
    """1/R Σ over relevant items of (relevant items up to it) / (items up to it), counted pair by pair."""
    place = np.random.default_rng(0).permutation(len(gallery_label)).tolist()
    out = []
    for row, label in zip(scores.tolist(), query_label, strict=True):
        keys = [(-s, p) for s, p in zip(row, place, strict=True)]
        relevant = [k for k, g in zip(keys, gallery_label, strict=True) if g == label]
        precision = [sum(o <= k for o in relevant) / sum(o <= k for o in keys) for k in relevant]
        out.append(sum(precision) / len(precision) if precision else float("nan"))
    return out


def trec_eval(scores: np.ndarray, query_label: np.ndarray, gallery_label: np.ndarray, measure: str) -> list[float]:
    """A measure of trec_eval for each query; it takes tied documents in reverse order of their names."""
    judged = {
        f"q{q}": {f"d{g}": int(other == label) for g, other in enumerate(gallery_label)}
        for q, label in enumerate(query_label)
    }
    run = {f"q{q}": {f"d{g}": float(s) for g, s in enumerate(row)} for q, row in enumerate(scores)}
    results = pytrec_eval.RelevanceEvaluator(judged, {measure.replace("_5", ".5") if "cut" in measure else measure})
    evaluated = results.evaluate(run)
    return [evaluated[f"q{q}"][measure] for q in range(len(query_label))]


CASES = {
    "random": lambda rng: rng.standard_normal((30, 200)),
    "positive": lambda rng: rng.random((30, 200)),
    "tied": lambda rng: rng.integers(-3, 4, (30, 200)),
    "half precision": lambda rng: rng.standard_normal((30, 200)).astype(np.float16),
    "all tied": lambda rng: np.full((30, 200), 0.25),
    "zeros of both signs": lambda rng: rng.choice([0.0, -0.0], (30, 200)),
    "huge": lambda rng: rng.choice([MAX, -MAX, MAX / 2, 1.0], (30, 200)),
    "subnormal": lambda rng: TINY * rng.integers(-3, 4, (30, 200)),
    "neighbours among the floats": lambda rng: rng.choice([*NEIGHBOURS, *(-v for v in NEIGHBOURS)], (30, 200)),
    "where a bit is lost": lambda rng: rng.choice([*AROUND_TWO, *(-v for v in AROUND_TWO)], (30, 200)),
    "few ties": lambda rng: np.round(rng.standard_normal((30, 200)), 3),
    "one item": lambda rng: rng.standard_normal((30, 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_average_precision_equals_the_peers(case: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    scores = np.asarray(CASES[case](rng), dtype=dtype)
    query_label, gallery_label = rng.integers(4, size=30), rng.integers(3, size=scores.shape[1])
    ap = average_precision(scores, query_label, gallery_label)
    answered = np.isin(query_label, gallery_label)
    assert answered.any()
    assert np.isnan(ap[~answered]).all()
    assert not answered.all()
    relevant = query_label[answered, None] == gallery_label
    rows = untied(scores[answered])
    sklearn = [average_precision_score(r, s) for r, s in zip(relevant, rows, strict=True)]
    np.testing.assert_allclose(ap[answered], sklearn, rtol=0, atol=1e-9)
    trec = trec_eval(rows, query_label[answered], gallery_label, "map")
    np.testing.assert_allclose(ap[answered], trec, rtol=0, atol=1e-9)


score = st.sampled_from([*NEIGHBOURS, *AROUND_TWO, -2.0, -1.0, 0.0, -0.0, TINY, -TINY, MAX, -MAX, 0.5]) | st.floats(
    -2, 2, width=32
)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_average_precision_equals_the_definition(data: st.DataObject) -> None:
    queries, gallery = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 25))
    rows = st.lists(st.lists(score, min_size=gallery, max_size=gallery), min_size=queries, max_size=queries)
    scores = np.array(data.draw(rows), dtype=data.draw(st.sampled_from([np.float32, np.float64])))
    label = st.integers(0, 2)
    query_label = np.array(data.draw(st.lists(label, min_size=queries, max_size=queries)))
    gallery_label = np.array(data.draw(st.lists(label, min_size=gallery, max_size=gallery)))
    ap = average_precision(scores, query_label, gallery_label)
    np.testing.assert_allclose(ap, by_definition(scores, query_label, gallery_label), rtol=0, atol=1e-12)


def test_large_gallery_with_ties_across_blocks() -> None:
    rng = np.random.default_rng(2)
    gallery_label, query_label = rng.integers(12, size=9_000), rng.integers(12, size=60)
    scores = np.round(rng.standard_normal((60, 9_000)), 6).astype(np.float32)
    scores[7] = np.round(scores[7], 1)
    expected = []
    for row, label in zip(scores, query_label, strict=True):
        ranks = np.flatnonzero((gallery_label == label)[ranking(row)]) + 1
        expected.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    np.testing.assert_allclose(average_precision(scores, query_label, gallery_label), expected, rtol=0, atol=1e-12)


def test_by_hand() -> None:
    # ranks of the relevant items: 1 and 3 of 4; then 2 and 4
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.7, 0.8, 0.1, 0.3]], dtype=np.float32)
    query_label, gallery_label = np.array([1, 1]), np.array([1, 0, 1, 0])
    np.testing.assert_allclose(
        average_precision(scores, query_label, gallery_label), [(1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2]
    )
    np.testing.assert_allclose(average_precision(scores, query_label, gallery_label, Cutoff(2)), [1 / 2, (1 / 2) / 2])
    hits = average_precision(scores, query_label, gallery_label, Cutoff(2, "hits"))
    np.testing.assert_allclose(hits, [1, 1 / 2])
    nothing = average_precision(scores[1:], query_label[1:], gallery_label, Cutoff(1, "hits"))
    np.testing.assert_array_equal(nothing, [0])


def test_cutoff_relevant_is_trec_evals() -> None:
    rng = np.random.default_rng(3)
    scores, query_label, gallery_label = rng.random((20, 60)), rng.integers(4, size=20), np.arange(60) % 4
    trec = trec_eval(scores, query_label, gallery_label, "map_cut_5")
    ap = average_precision(scores, query_label, gallery_label, Cutoff(5))
    np.testing.assert_allclose(ap, trec, rtol=0, atol=1e-9)
    assert (average_precision(scores, query_label, gallery_label, Cutoff(5, "hits")) >= ap).all()


@pytest.mark.parametrize("case", CASES)
def test_interpolated_precision_is_trec_evals(case: str) -> None:
    rng = np.random.default_rng(8)
    scores, query_label = CASES[case](rng), rng.integers(4, size=30)
    # whole numbers of items at every level: elsewhere trec_eval's binary fractions may round to the item before
    gallery_label = rng.permutation(np.repeat([0, 1, 2], [50, 70, 80]))[: scores.shape[1]]
    found = interpolated_precision(scores, query_label, gallery_label)
    answered = np.isin(query_label, gallery_label)
    assert np.isnan(found[~answered]).all()
    for level in range(11):
        trec = trec_eval(untied(scores), query_label, gallery_label, f"iprec_at_recall_{level / 10:.2f}")
        np.testing.assert_allclose(found[answered, level], np.array(trec)[answered], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_first_items_are_those_of_the_ranking(case: str) -> None:
    scores = CASES[case](np.random.default_rng(9))
    expected = [ranking(row)[:10] for row in scores]
    np.testing.assert_array_equal(first_items(scores, 10), expected)


def test_all_relevant_is_one() -> None:
    scores = np.random.default_rng(4).integers(3, size=(5, 40)).astype(np.float32)
    np.testing.assert_array_equal(average_precision(scores, np.zeros(5), np.zeros(40)), np.ones(5))


def test_ties_favour_no_class_and_follow_the_seed() -> None:
    gallery_label = np.repeat(np.arange(20), 50)  # listed class by class
    scores, query_label = np.zeros((20, 1_000), dtype=np.float32), np.arange(20)
    ap = average_precision(scores, query_label, gallery_label)
    assert abs(ap.mean() - expected_random_map(query_label, gallery_label)) < 0.01
    np.testing.assert_array_equal(ap, average_precision(scores, query_label, gallery_label))
    assert (ap != average_precision(scores, query_label, gallery_label, tie_seed=1)).any()


def test_scores_must_be_finite_and_of_the_right_shape() -> None:
    labels = np.array([0, 0, 1])
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        for dtype in (np.float32, np.float64):
            scores = np.ones((3, 3), dtype=dtype)
            scores[0, 1] = scores[2, 0] = bad
            with pytest.raises(ValueError, match="2 of 9 scores are not finite"):
                average_precision(scores, labels, labels)
            with pytest.raises(ValueError, match="1 of 3 scores are not finite"):
                average_precision(scores[:1], np.array([7]), labels)
            with pytest.raises(ValueError, match="2 of 9 scores are not finite"):
                pair_ranks(scores, labels)
    with pytest.raises(ValueError, match="shape"):
        average_precision(np.ones((3, 2)), labels, labels)


def test_empty_inputs() -> None:
    assert average_precision(np.ones((0, 3)), np.array([]), np.array([1, 2, 3])).shape == (0,)
    assert np.isnan(average_precision(np.ones((2, 0)), np.array([1, 2]), np.array([]))).all()
    assert first_items(np.ones((0, 3)), 2).shape == (0, 2) and first_items(np.ones((2, 0)), 5).shape == (2, 0)


def test_pair_ranks_are_places_in_the_ranking() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(4, size=(50, 30)).astype(np.float32)
    pair = rng.integers(-1, 30, size=50)
    expected = [list(ranking(row)).index(own) + 1 if own >= 0 else 0 for row, own in zip(scores, pair, strict=True)]
    np.testing.assert_array_equal(pair_ranks(scores, pair), expected)


def test_pair_rank_agrees_with_average_precision_of_one_relevant_item() -> None:
    scores = np.random.default_rng(6).integers(9, size=(40, 40)).astype(np.float32)
    labels = np.arange(40)
    np.testing.assert_allclose(1 / pair_ranks(scores, labels), average_precision(scores, labels, labels))


def test_random_rankings_have_the_expected_mean() -> None:
    rng = np.random.default_rng(7)
    gallery_label = np.repeat([0, 1, 2], [1, 9, 30])
    query_label = np.repeat([0, 1, 2], 3_000)
    ap = average_precision(rng.random((9_000, 40)), query_label, gallery_label)
    for label, relevant in ((0, 1), (1, 9), (2, 30)):
        own = ap[query_label == label]
        error = own.std(ddof=1) / np.sqrt(len(own))
        assert abs(own.mean() - expected_random_ap(np.array(relevant), 40)) < 4 * error
    error = ap.std(ddof=1) / np.sqrt(len(ap))
    assert abs(ap.mean() - expected_random_map(query_label, gallery_label)) < 4 * error


def test_expected_ap_by_hand() -> None:
    # 1 of 2: rank 1 or 2, so (1 + 1/2) / 2; 2 of 3: ranks 12, 13, 23
    two_of_three = (1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3
    expected = expected_random_ap(np.array([1, 2, 3, 1, 0]), np.array([2, 3, 3, 1, 5]))
    np.testing.assert_allclose(expected, [3 / 4, two_of_three, 1, 1, np.nan])
    assert expected_random_map(np.array([0, 1, 9]), np.array([0, 1])) == pytest.approx(3 / 4)
    assert np.isnan(expected_random_map(np.array([9]), np.array([0, 1])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_first_ranks_are_those_of_the_full_sort(case: str, dtype: type) -> None:
    """The first relevant item in the documented order, and trec_eval's reciprocal rank."""
    rng = np.random.default_rng(4)
    scores = np.asarray(CASES[case](rng), dtype=dtype)
    query_label, gallery_label = rng.integers(40, size=30), rng.integers(30, size=scores.shape[1])
    found = first_ranks(scores, query_label, gallery_label)
    answered = np.isin(query_label, gallery_label)
    assert (found[~answered] == 0).all()
    for q in np.flatnonzero(answered):
        assert found[q] == 1 + (gallery_label == query_label[q])[ranking(scores[q])].argmax()
    trec = trec_eval(untied(scores), query_label, gallery_label, "recip_rank")
    np.testing.assert_allclose(1 / found[answered], np.array(trec)[answered], rtol=0, atol=1e-9)


def test_of_several_relevant_items_the_best_counts_and_ties_favour_nobody() -> None:
    """Two images' captions are word for word the same: which of them stands first is the shuffle's choice."""
    captions = np.repeat(np.arange(200), 2)  # the second caption of image 0, 2, 4, ... is the first of the next image
    scores = np.zeros((200, 400), np.float32)
    scores[np.arange(200), 2 * np.arange(200) + 1] = scores[np.arange(200), (2 * np.arange(200) + 2) % 400] = 1
    ranks = first_ranks(scores, np.arange(200), captions)
    assert set(ranks.tolist()) == {1, 2}
    assert 70 < (ranks == 1).sum() < 130  # half of 200, within four standard deviations
    scores[np.arange(200), 2 * np.arange(200)] = 1  # now two of its own and one of another's
    assert (first_ranks(scores, np.arange(200), captions) == 1).sum() > 200 * 2 / 3 - 27
    assert (first_ranks(scores + 0.5, np.arange(200), captions, tie_seed=1) <= 2).all()
