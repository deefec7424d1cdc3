"""Letters say exactly who is told apart; peers agree."""

from __future__ import annotations

import itertools

import numpy as np
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st

from xshot_bench.benchmarks.tiers import cliques, letters, shared


@st.composite
def verdicts(draw: st.DrawFn) -> tuple[list[str], set[frozenset[str]]]:
    names = [f"m{i}" for i in range(draw(st.integers(1, 7)))]
    pairs = [frozenset(pair) for pair in itertools.combinations(names, 2)]
    apart = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    return names, apart


@given(verdicts())
def test_two_share_a_letter_exactly_when_they_are_not_told_apart(case: tuple[list[str], set[frozenset[str]]]) -> None:
    names, apart = case
    found = letters(names, lambda a, b: frozenset((a, b)) in apart)
    for a, b in itertools.combinations(names, 2):
        assert bool(set(found[a]) & set(found[b])) == (frozenset((a, b)) not in apart)
    assert "a" in found[names[0]]
    for letter in {letter for text in found.values() for letter in text}:  # no letter could go, or take one more in
        members = [name for name in names if letter in found[name]]
        others = [name for name in names if name not in members]
        assert all(any(frozenset((other, m)) in apart for m in members) for other in others)


def test_more_sets_than_letters_are_still_kept_apart() -> None:
    """A chain of 30, in which neighbours alone are not told apart, has 29 sets."""
    names = [f"m{i:02}" for i in range(30)]
    found = letters(names, lambda a, b: abs(int(a[1:]) - int(b[1:])) > 1)
    assert found["m00"] == "a"
    assert found["m26"] == "za'"
    assert shared("za'", "a'b'")
    assert not shared("ab", "a'")  # one apostrophe more is another letter
    for a, b in itertools.combinations(names, 2):
        assert shared(found[a], found[b]) == (int(b[1:]) - int(a[1:]) == 1)


@settings(max_examples=50)
@given(verdicts())
def test_a_peer_agrees(case: tuple[list[str], set[frozenset[str]]]) -> None:
    names, apart = case
    p = np.array([[0.01 if frozenset((a, b)) in apart else 1.0 for b in names] for a in names])
    peer = scikit_posthocs.compact_letter_display(p, names=names)
    found = letters(names, lambda a, b: frozenset((a, b)) in apart)
    for a, b in itertools.combinations(names, 2):
        shared = set(peer[a].replace(" ", "")) & set(peer[b].replace(" ", ""))
        assert bool(shared) == bool(set(found[a]) & set(found[b]))


def test_what_lies_between_has_two_letters() -> None:
    apart = {frozenset("xz")}
    assert letters("xyz", lambda a, b: frozenset((a, b)) in apart) == {"x": "a", "y": "ab", "z": "b"}
    assert cliques("xyz", lambda a, b: frozenset((a, b)) in apart) == [("x", "y"), ("y", "z")]


def test_there_are_more_than_26_letters() -> None:
    found = letters([str(i) for i in range(30)], lambda a, b: True)
    assert len(set(found.values())) == 30
    assert found["0"] == "a" and found["26"] == "a'"
