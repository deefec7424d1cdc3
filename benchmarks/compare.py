"""Records -> the comparison that a table prints: one row for each dataset, X and method."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import numpy as np

from xshot_bench.benchmarks.plan import Plan
from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.significance import Estimate, holm, two_way
from xshot_bench.benchmarks.store import Store
from xshot_bench.datasets.splitting import Gallery, Shots


@dataclass(frozen=True)
class Difference:
    """Paired difference of mean mAP to ``baseline`` over the draws and queries that both have.

    p_holm: the two-way test's p, corrected over the whole table; None where there is one draw only.
    """

    baseline: str
    estimate: Estimate
    p_holm: float | None = None


@dataclass(frozen=True)
class Row:
    """One method at one X: mAP (fractions) per direction and their mean with its interval over draws and queries.

    draws: cells done, of ``asked``. reason: why cells are missing, if any failed or were declined.
    seconds: median computing time of a cell.
    """

    dataset: str
    shots: Shots
    method: str
    draws: int
    asked: int
    i2t: float = float("nan")
    t2i: float = float("nan")
    mean: Estimate | None = None
    difference: Difference | None = None
    reason: str = ""
    failed: int = 0
    seconds: float = float("nan")


@dataclass(frozen=True)
class Block:
    """What all rows of a dataset share: split digest, sizes, and the floor, the mAP expected of a random ranking."""

    dataset: str
    split: str
    queries: int
    gallery: int
    left_out: int
    floor: float


@dataclass(frozen=True)
class Comparison:
    """All that a table says. ``metric`` values are fractions."""

    encoder: str
    gallery: Gallery
    baseline: str
    blocks: tuple[Block, ...]
    rows: tuple[Row, ...]


def compare(plan: Plan, records: dict[str, Record], store: Store) -> Comparison:
    """The comparison of a plan's cells, from the records there are of them (by cell digest)."""
    suite = plan.suite
    rows: list[Row] = []
    for dataset, shots in dict.fromkeys((cell.dataset, cell.shots) for cell in plan.cells):
        entries: dict[str, list[Record | None]] = {}
        for cell in plan.cells:
            if (cell.dataset, cell.shots) == (dataset, shots):
                entries.setdefault(cell.method, []).append(records.get(cell.digest))
        aps = {method: _ap_by_draw(found, store) for method, found in entries.items()}
        for method, found in entries.items():
            switched = bool(suite.ablate) and method.startswith(f"{suite.ablate}:")
            baseline = suite.ablate if switched else suite.baseline
            difference = _difference(baseline, aps[method], aps.get(baseline, {})) if method != baseline else None
            rows.append(_row(Row(dataset, shots, method, len(aps[method]), len(found)), found, aps[method], difference))
    blocks = [_block(material.name, material.split.digest, plan, records) for material in plan.materials]
    return Comparison(suite.encoder, suite.gallery, suite.baseline, tuple(b for b in blocks if b), _corrected(rows))


def _ap_by_draw(found: list[Record | None], store: Store) -> dict[int, np.ndarray]:
    """Draw -> AP ``[Q,2]`` of every query in both directions, for the cells that are done."""
    done = [record for record in found if record and record.status == "done"]
    return {r.cell.draw: store.average_precision(r)[list(DIRECTIONS)].to_numpy() for r in done}


def _difference(baseline: str, own: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> Difference | None:
    shared = sorted(own.keys() & other.keys())
    if not shared:
        return None
    return Difference(baseline, two_way(np.stack([(own[d] - other[d]).mean(1) for d in shared])))


def _row(row: Row, found: list[Record | None], aps: dict[int, np.ndarray], difference: Difference | None) -> Row:
    unfinished = [record for record in found if record and record.status != "done"]
    row = replace(
        row,
        difference=difference,
        failed=sum(record.status == "failed" for record in unfinished),
        reason="; ".join(dict.fromkeys(f"{record.status}: {record.reason}" for record in unfinished)),
    )
    if not aps:
        return row
    values = np.stack([aps[draw] for draw in sorted(aps)])
    i2t, t2i = np.nanmean(values, axis=(0, 1))
    seconds = [sum(record.seconds.values()) for record in found if record and record.status == "done"]
    return replace(row, i2t=i2t, t2i=t2i, mean=two_way(values.mean(2)), seconds=statistics.median(seconds))


def _corrected(rows: list[Row]) -> tuple[Row, ...]:
    """Holm's correction over every hypothesis of the table; a test over the queries of one draw is none."""
    tested = [i for i, row in enumerate(rows) if row.difference and row.difference.estimate.over != "queries"]
    corrected = holm([rows[i].difference.estimate.p for i in tested])  # type: ignore[union-attr]
    for i, p in zip(tested, corrected, strict=True):
        difference = rows[i].difference
        if difference:
            rows[i] = replace(rows[i], difference=replace(difference, p_holm=p))
    return tuple(rows)


def _block(dataset: str, split: str, plan: Plan, records: dict[str, Record]) -> Block | None:
    for cell in plan.cells:
        record = records.get(cell.digest)
        if cell.dataset == dataset and record and record.status == "done":
            counts = record.counts
            return Block(dataset, split, counts["queries"], counts["gallery"], counts["left_out"], record.floor["i2t"])
    return None
