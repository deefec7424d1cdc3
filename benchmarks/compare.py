"""Records -> the comparison that a table prints: one row for each dataset, X and method."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xshot_bench.benchmarks.blocks import rankings
from xshot_bench.benchmarks.comparison import Below, Block, Comparison, Pair, Row
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.ladder import Drawn, difference, paired, power
from xshot_bench.benchmarks.metrics import average_precision
from xshot_bench.benchmarks.plan import Material, Plan
from xshot_bench.benchmarks.protocol import DIRECTIONS, RECALLS, Setting
from xshot_bench.benchmarks.records import Record
from xshot_bench.benchmarks.significance import ALPHA, Correction, correct, draw_sd, two_way
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tiers import letters
from xshot_bench.datasets.feature_cache import open_features
from xshot_bench.datasets.splitting import Shots

ZERO_SHOT = "clip"  # what the shots must be worth: a method below it is marked


@dataclass(frozen=True)
class Place:
    """All methods on one dataset at one X: their rows, and the AP that they are made of."""

    rows: list[Row]
    aps: dict[str, Drawn]


def compare(plan: Plan, records: dict[str, Record], store: Store) -> Comparison:
    """The comparison of a plan's cells, from the records there are of them (by cell digest)."""
    suite = plan.suite
    spots = dict.fromkeys((cell.dataset, cell.shots) for cell in plan.cells)
    places = [_place(plan, records, store, *spot) for spot in spots]
    several = suite.draws > 1
    pairs = _corrected([pair for place in places for pair in _pairs(place)], suite.correction) if several else ()
    rows = [row for place in places for row in _judged(place.rows, pairs)]
    if not several:
        rows = _corrected_on_draw(rows, suite.correction)
    blocks = [_block(material, plan, records) for material in plan.materials]
    found = [row.difference for row in rows if row.difference]
    return Comparison(
        encoder=suite.encoder,
        protocol=suite.protocol,
        gallery=suite.gallery,
        baseline=suite.baseline,
        blocks=tuple(block for block in blocks if block),
        rows=tuple(rows),
        pairs=tuple(pairs),
        correction=suite.correction,
        margin=suite.margin / 100,
        power=power(found, len(pairs)),
        rankings=rankings(rows),
        tuned=suite.tuned,
    )


def _place(plan: Plan, records: dict[str, Record], store: Store, dataset: str, shots: Shots) -> Place:
    entries: dict[str, list[Record | None]] = {}
    for cell in plan.cells:
        if (cell.dataset, cell.shots) == (dataset, shots):
            entries.setdefault(cell.method, []).append(records.get(cell.digest))
    aps = {method: _drawn(found, store) for method, found in entries.items()}
    rows = []
    for variant in plan.variants:
        baseline = plan.kept(variant.reference or plan.suite.baseline)
        to = difference(baseline, aps[variant.name], aps.get(baseline, {}), plan.suite.margin / 100)
        row = Row(dataset, shots, variant.name, len(aps[variant.name]), len(entries[variant.name]))
        row = replace(row, group=variant.group, also=variant.also, difference=to if variant.name != baseline else None)
        if variant.reference:
            row = replace(row, reference=baseline)
        rows.append(_filled(row, entries[variant.name], aps[variant.name]))
    return Place(rows, aps)


def _drawn(found: list[Record | None], store: Store) -> Drawn:
    """Draw -> AP ``[Q,2]`` of every query in both directions, for the cells that are done."""
    done = [record for record in found if record and record.status == "done"]
    return {r.cell.draw: store.average_precision(r)[list(DIRECTIONS)].to_numpy() for r in done}


def _filled(row: Row, found: list[Record | None], aps: Drawn) -> Row:
    unfinished = [record for record in found if record and record.status != "done"]
    row = replace(
        row,
        failed=sum(record.status == "failed" for record in unfinished),
        reason="; ".join(dict.fromkeys(f"{record.status}: {record.reason}" for record in unfinished)),
    )
    if not aps:
        return row
    values = np.stack([aps[draw] for draw in sorted(aps)])
    i2t, t2i = np.nanmean(values, axis=(0, 1))
    done = [record for record in found if record and record.status == "done"]
    return replace(
        row,
        i2t=float(i2t),
        t2i=float(t2i),
        mean=two_way(values.mean(2)),
        draw_sd=draw_sd(values.mean(2)),
        recall={name: statistics.fmean(record.metrics.get(name, np.nan) for record in done) for name in RECALLS},
        accuracy=statistics.fmean(record.metrics.get("accuracy", np.nan) for record in done),
        seconds=statistics.median(sum(record.seconds.values()) for record in done),
    )


def _pairs(place: Place) -> list[Pair]:
    """The hypotheses of one dataset and X: every pair of methods, and each row against its baseline and zero-shot."""
    rows = place.rows
    asked = [(a.method, b.method) for a, b in itertools.combinations(rows, 2) if a.group == b.group == "methods"]
    asked += [(row.method, row.difference.baseline) for row in rows if row.difference]
    asked += [(row.method, ZERO_SHOT) for row in rows if ZERO_SHOT in place.aps and row.method != ZERO_SHOT]
    once = {frozenset(names): names for names in reversed(asked)}
    found = []
    for first, second in reversed(once.values()):
        values = paired(place.aps[first], place.aps[second])
        if values is not None and len(values) > 1:
            found.append(Pair(rows[0].dataset, rows[0].shots, first, second, two_way(values)))
    return found


def _corrected(pairs: Sequence[Pair], correction: Correction) -> tuple[Pair, ...]:
    corrected = correct([pair.estimate.p for pair in pairs], correction)
    return tuple(replace(pair, p_corrected=p) for pair, p in zip(pairs, corrected, strict=True))


def _judged(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Row]:
    """The rows of one dataset and X with what the corrected tests say of them."""
    here = (rows[0].dataset, rows[0].shots)
    known = {frozenset((p.first, p.second)): p for p in pairs if (p.dataset, p.shots) == here}

    def corrected(a: str, b: str) -> float | None:
        pair = known.get(frozenset((a, b)))
        return pair.p_corrected if pair else None

    def told_apart(a: str, b: str) -> bool:
        p = corrected(a, b)
        return p is not None and p <= ALPHA

    def lower(row: Row) -> bool:
        pair = known.get(frozenset((row.method, ZERO_SHOT)))
        if pair:
            return pair.estimate.mean * (1 if pair.first == row.method else -1) < 0
        zero_shot = next((r.mean.mean for r in rows if r.method == ZERO_SHOT and r.mean), -np.inf)
        return row.mean is not None and row.mean.mean < zero_shot

    ranked = sorted((r for r in rows if r.mean and r.group == "methods"), key=lambda r: -r.mean.mean)  # type: ignore[union-attr]
    tiers = letters([row.method for row in ranked], told_apart) if known and len(ranked) > 1 else {}
    judged = []
    for row in rows:
        to = row.difference and replace(row.difference, p_corrected=corrected(row.method, row.difference.baseline))
        below: Below = ""
        if lower(row):
            below = "significantly below" if told_apart(row.method, ZERO_SHOT) else "below"
        judged.append(replace(row, difference=to, tier=tiers.get(row.method, ""), below=below))
    return judged


def _corrected_on_draw(rows: Sequence[Row], correction: Correction) -> list[Row]:
    """With a single draw, the tests over its queries are what is corrected."""
    on_draw = [next(iter(row.difference.on_draw.values())) if row.difference else None for row in rows]
    return [
        replace(row, difference=replace(row.difference, p_corrected=p)) if row.difference else row
        for row, p in zip(rows, correct(on_draw, correction), strict=True)
    ]


def _block(material: Material, plan: Plan, records: dict[str, Record]) -> Block | None:
    cells = [cell.digest for cell in plan.cells if cell.dataset == material.name]
    done = [r for digest in cells if (r := records.get(digest)) and r.status == "done"]
    if not done:
        return None
    counts = done[0].counts
    i2t, t2i = (statistics.fmean(record.floor[direction] for record in done) for direction in DIRECTIONS)
    return Block(
        dataset=material.name,
        encoder=done[0].cell.encoder,
        split=material.split.digest,
        queries=counts["queries"],
        gallery=counts["gallery"],
        left_out=counts["left_out"],
        floor=(i2t + t2i) / 2,
        floors=(i2t, t2i),
        ceiling=_ceiling(material, plan) if plan.suite.oracle else None,
    )


def _ceiling(material: Material, plan: Plan) -> float:
    """The mAP of a ranking that knows the labels: the metric run on one-hot label scores."""
    features = open_features(material.features)
    setting = Setting(plan.suite.shots[0], material.split.draws[0], plan.suite.gallery)
    keys = make_episode(features, material.split, setting).answers.key.values()
    onehot = np.eye(int(features.label.max()) + 1, dtype=np.float32)
    found = [
        average_precision(onehot[key.query_label] @ onehot[key.gallery_label].T, key.query_label, key.gallery_label)
        for key in keys
    ]
    return statistics.fmean(float(np.nanmean(ap)) for ap in found)
