"""The ladder of one comparison: what stands on each rung, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xshot_bench.benchmarks.ladder import difference, paired, power
from xshot_bench.benchmarks.significance import sign_flip, two_way


def drawn(draws: int, queries: int = 30, shift: float = 0.0, seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {draw: rng.random((queries, 2)) + shift for draw in range(draws)}


def test_pairs_are_of_draws_and_queries_that_both_have() -> None:
    own, other = drawn(4, seed=1), drawn(5, seed=2)
    del own[1]
    own[2][7] = np.nan
    values = paired(own, other)
    assert values is not None
    kept = [q for q in range(30) if q != 7]
    assert values == pytest.approx(np.stack([(own[d] - other[d]).mean(1)[kept] for d in (0, 2, 3)]))
    assert paired(own, {9: own[0]}) is None
    assert difference("b", own, {9: own[0]}, 0.005) is None


def test_every_rung() -> None:
    own, other = drawn(6, shift=0.3, seed=3), drawn(6, seed=4)
    found = difference("b", own, other, 0.005)
    assert found is not None and found.tested
    values = np.stack([(own[d] - other[d]).mean(1) for d in range(6)])
    assert found.estimate == two_way(values)
    assert found.on_draw.keys() == set(range(6))
    assert found.on_draw[2] == pytest.approx(stats.ttest_1samp(values[2], 0).pvalue, abs=0.01)
    assert found.over_draws == pytest.approx(2 / 2**6)  # it won every draw
    low, high = found.bootstrap
    assert (low, high) == pytest.approx((found.estimate.low, found.estimate.high), abs=0.05)
    assert (found.matters, found.refused, found.effect.draws_won) == ("different", (), 1.0)
    assert found == difference("b", own, other, 0.005)  # nothing about it is random


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_a_sign_flip_over_few_draws_is_refused(draws: int) -> None:
    """With S draws no outcome gives less than 2 / 2^S."""
    found = difference("b", drawn(draws, shift=5), drawn(draws, seed=1), 0.005)
    assert found is not None and found.over_draws is None and found.tested
    assert f"sign-flip over {draws} draws: its smallest p is" in found.refused[0]
    best = sign_flip(np.arange(1.0, draws + 1), np.random.default_rng(0))
    assert best > 0.05


def test_one_draw_is_tested_on_itself_alone() -> None:
    found = difference("b", drawn(1, shift=5), drawn(1, seed=1), 0.005)
    assert found is not None and not found.tested and found.over_draws is None
    assert found.on_draw[0] < 0.001
    assert "one draw says nothing about others" in found.refused[0]
    assert power([found], 1) is None


def test_the_same_ap_is_no_difference() -> None:
    found = difference("b", drawn(5), drawn(5), 0.005)
    assert found is not None
    assert (found.estimate.mean, found.estimate.p, found.matters) == (0, 1, "equivalent")
    assert (found.effect.ties, found.effect.draws_won) == (30, 0.5)
    assert power([found], 1) is None  # nothing varies: there is no telling what could be found


def test_the_power_of_a_table() -> None:
    found = [difference("b", drawn(5, shift=0.1, seed=s), drawn(5, seed=s + 10), 0.005) for s in range(3)]
    table = power([d for d in found if d], 3)
    assert table is not None
    assert table.best <= table.typical <= table.worst < 1
    assert table.with_ten < table.typical < table.corrected
    assert table.draws == 5
