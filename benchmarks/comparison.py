"""What a table says, as data: the rows, the tests behind them, and the ranking across blocks.

Everything that is printed, drawn or logged is read from a `Comparison`. mAP and its differences are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xshot_bench.benchmarks.ablation import Group
from xshot_bench.benchmarks.significance import Correction, Effect, Estimate, Matters, MeanSquares
from xshot_bench.datasets.splitting import Gallery, Protocol, Shots

Below = Literal["", "below", "significantly below"]


@dataclass(frozen=True)
class Difference:
    """A method minus ``baseline`` in mean mAP, over the draws and queries that both have: the ladder of its tests.

    squares: the mean squares of draws, queries and rest, from which its power follows.
    on_draw: draw -> p of the sign-flip test over its queries ("on this draw").
    over_draws: p of the sign-flip test over the draws ("on these queries"); None where it could never be significant.
    estimate: the headline, the crossed two-way test ("over draws and queries"). bootstrap: the 95 % interval of a
    bootstrap over draws and queries beside it. p_corrected: the headline's p (of a table with one draw: that draw's),
    corrected over the whole table.
    matters: whether the estimate's interval lies beyond, within or across the table's margin.
    refused: the tests that were not made, each with its reason.
    """

    baseline: str
    estimate: Estimate
    effect: Effect
    squares: MeanSquares
    on_draw: dict[int, float]
    over_draws: float | None
    bootstrap: tuple[float, float]
    p_corrected: float | None = None
    matters: Matters | None = None
    refused: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether there is a test over draws; one draw alone makes none."""
        return self.estimate.draws > 1 and self.estimate.p is not None


@dataclass(frozen=True)
class Row:
    """One method at one X: mAP per direction and their mean with its interval over draws and queries.

    shots: None for the rows of chance and of known labels, which are the same at every X.
    group: the table it belongs to; rows of an ablation or a sweep are compared with the variant ``reference``.
    also: other names of the same configuration, which is run and shown once.
    recall: ``i2t/R_1`` and so on, of the own pair or, in the protocol ``instance``, of any of its own.
    accuracy: top-1, of image queries against the classes' prompts or posteriors; NaN where there is none.
    draws: cells done, of ``asked``. draw_sd: the standard deviation of mean mAP from draw to draw.
    tier: compact letters; two methods of one dataset and X share a letter exactly when they cannot be told apart.
    below: whether it lies below zero-shot on the draws that both have, and whether the corrected test says so too.
    reason: why cells are missing, if any failed or were declined. seconds: median computing time of a cell.
    """

    dataset: str
    shots: Shots | None
    method: str
    draws: int
    asked: int
    group: Group = "methods"
    reference: str = ""
    also: tuple[str, ...] = ()
    i2t: float = float("nan")
    t2i: float = float("nan")
    mean: Estimate | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    accuracy: float = float("nan")
    draw_sd: float = float("nan")
    tier: str = ""
    difference: Difference | None = None
    below: Below = ""
    reason: str = ""
    failed: int = 0
    seconds: float = float("nan")


@dataclass(frozen=True)
class Pair:
    """Two methods of one dataset and X, ``first`` minus ``second``: one hypothesis of the table."""

    dataset: str
    shots: Shots | None
    first: str
    second: str
    estimate: Estimate
    p_corrected: float | None = None


@dataclass(frozen=True)
class Block:
    """What all rows of a dataset share: split digest, sizes, and the mAP of knowing nothing and of knowing all.

    floor: expected of a random ranking (closed form), and per direction ``floors`` (i2t, t2i). ceiling: measured with
    the labels known; None if not asked for.
    """

    dataset: str
    encoder: str
    split: str
    queries: int
    gallery: int
    left_out: int
    floor: float
    floors: tuple[float, float]
    ceiling: float | None = None


@dataclass(frozen=True)
class Power:
    """What the table can find: the true difference in mAP that is detected with 80 % power at the 5 % level.

    typical, best, worst: over the table's differences, each from its own variance components. corrected: the typical
    one at the level that the correction leaves at worst, .05 / hypotheses. with_ten: the typical one with ten draws.
    """

    draws: int
    typical: float
    best: float
    worst: float
    corrected: float
    with_ten: float


@dataclass(frozen=True)
class Ranking:
    """Methods at one X across blocks (a block is a dataset or class split in one direction).

    methods: by mean rank, the best first; ``ranks`` are their mean ranks (1 is best). friedman: the p that all are
    alike. p: Wilcoxon's signed-rank p for each pair, Holm-corrected, ``[methods, methods]``. cliques: the largest
    sets of methods of which no two are told apart. refused: why a test was not made; what needs it is empty then.
    """

    shots: Shots | None
    blocks: tuple[str, ...]
    methods: tuple[str, ...] = ()
    ranks: tuple[float, ...] = ()
    friedman: float | None = None
    p: tuple[tuple[float, ...], ...] = ()
    cliques: tuple[tuple[str, ...], ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that the tables say.

    hypotheses: how many tests the ``correction`` is over. margin: a difference of less than this does not matter.
    pairs: every hypothesis. rankings: one for each X. tuned: dataset -> method -> the parameters found for it there.
    """

    encoder: str
    protocol: Protocol
    gallery: Gallery
    baseline: str
    blocks: tuple[Block, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...] = ()
    correction: Correction = "holm"
    margin: float = 0.005
    power: Power | None = None
    rankings: tuple[Ranking, ...] = ()
    tuned: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def hypotheses(self) -> int:
        return sum(pair.p_corrected is not None for pair in self.pairs)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.dataset for row in self.rows))
