"""What stands over and under the tables: what the numbers mean, how they were tested, and what could not be."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from xshot_bench.benchmarks.comparison import Comparison, Difference, Ranking
from xshot_bench.benchmarks.protocol import GALLERIES
from xshot_bench.benchmarks.report.columns import p_value

CORRECTED = {
    "holm": "Holm: the chance of any false finding stays at 5 %",
    "fdr_bh": "Benjamini-Hochberg: 5 % of findings are expected to be false",
}


def caption(comparison: Comparison, dataset: str) -> list[str]:
    """What the numbers of a dataset's table mean, line by line."""
    draws = max(row.asked for row in comparison.rows)
    relevant = "its own texts or image" if comparison.protocol == "instance" else "same class"
    measured = f"mAP@all in %, relevant = {relevant}, {draws} draw{'s' if draws > 1 else ''}"
    block = next((block for block in comparison.blocks if block.dataset == dataset), None)
    if block is None:  # nothing was done
        return [f"{dataset} · encoder {comparison.encoder} · protocol {comparison.protocol}", measured]
    left_out = f", {block.left_out} left out (nothing relevant)" if block.left_out else ""
    sizes = (
        f"{block.queries} queries{left_out}, {block.gallery} gallery items: "
        f"{GALLERIES[comparison.gallery]} (gallery {comparison.gallery!r})"
    )
    if comparison.protocol == "instance":
        sizes = f"{block.queries} test images and their {block.gallery} texts, each searched by the other"
    return [
        f"{dataset} · encoder {block.encoder} · protocol {comparison.protocol} · split {block.split[:16]}",
        sizes,
        f"{measured} · chance: mAP of a random ranking",
    ]


def footnotes(comparison: Comparison) -> list[str]:
    """How the numbers were tested, and which rows to read with care."""
    differences = [row.difference for row in comparison.rows if row.difference]
    one_draw = all(row.asked == 1 for row in comparison.rows)
    over = "the queries of this draw" if one_draw else "draws and queries"
    lines = [f"±: half of the 95 % interval over {over}."]
    if differences:
        lines += [*_tested(comparison, differences, one_draw), *_marks(comparison)]
    elif all(row.method != comparison.baseline for row in comparison.rows):
        lines.append(f"No differences: {comparison.baseline} is not among the methods of this run.")
    if one_draw:
        lines.append("One draw only: no test over draws can be made, so there are no tiers. Use --draws 5.")
    if comparison.protocol == "kshot":
        lines.append("top-1: accuracy of the images in %, against the classes.")
    if comparison.protocol == "instance":
        lines.append("R@k: queries in % with an own text or the own image among the first k; each text is a query.")
    lines += [*_spread(comparison), *_incomplete(comparison)]
    named = dict.fromkeys((row.method, row.also) for row in comparison.rows if row.also)
    lines += [f"{method} is also {', '.join(also)}: run once, shown once." for method, also in named]
    lines += list(_tuned(comparison))
    if len(comparison.datasets) > 1:
        lines += ranked(comparison.rankings)
    return lines


def ranked(rankings: Sequence[Ranking]) -> list[str]:
    """The rankings across blocks, in words."""
    lines = []
    for ranking in rankings:
        over = f"{len(ranking.blocks)} blocks (dataset or class split × direction)"
        if not ranking.ranks:
            lines.append(f"Across {over}: no test, {ranking.refused}.")
            continue
        ranks = ", ".join(f"{name} {rank:.1f}" for name, rank in zip(ranking.methods, ranking.ranks, strict=True))
        alike = "" if ranking.friedman is None else f"; all alike: p {p_value(ranking.friedman)} (Friedman)"
        lines.append(f"X={ranking.shots} across {over}: mean ranks {ranks}{alike}.")
        tied = [" = ".join(clique) for clique in ranking.cliques if len(clique) > 1]
        told = f"not told apart: {'; '.join(tied)}" if tied else "all told apart"
        lines.append(f"X={ranking.shots}, pairs: {ranking.refused or f'{told} (Wilcoxon, Holm)'}.")
    return list(dict.fromkeys(lines))


def _tuned(comparison: Comparison) -> Iterator[str]:
    for dataset, found in comparison.tuned.items():
        settings = (f"{name} {', '.join(f'{k}={v}' for k, v in values.items())}" for name, values in found.items())
        yield f"tuned on {dataset} without its test items: {'; '.join(settings)}."


def _tested(comparison: Comparison, differences: Sequence[Difference], one_draw: bool) -> Iterator[str]:
    to = " or ".join(dict.fromkeys(d.baseline for d in differences))
    sizes = Counter((d.estimate.draws, d.estimate.queries) for d in differences).most_common()
    pairs = ", ".join(
        f"{draws} draws × {queries} queries" + (f" in {count} rows" if len(sizes) > 1 else "")
        for (draws, queries), count in sizes
    )
    yield f"difference: paired, to {to} at the same X, over complete pairs only: {pairs}."
    if one_draw:
        yield (
            f"p, this draw: sign-flip test over queries, which says nothing about other draws; corrected over "
            f"{len(differences)} tests ({CORRECTED[comparison.correction]})."
        )
    else:
        yield (
            f"p: crossed two-way test over draws and queries, corrected over the {comparison.hypotheses} pairs that "
            f"this table compares ({CORRECTED[comparison.correction]}); * at 5 %."
        )
        yield "tier: two methods at one X share a letter exactly when this test cannot tell them apart."
    yield (
        f"matters: the interval lies beyond ±{100 * comparison.margin:g} mAP (yes), within (no), or across (open); "
        "it is not corrected."
    )


def _marks(comparison: Comparison) -> Iterator[str]:
    marked = {row.below for row in comparison.rows}
    if "below" in marked:
        yield "↓: below zero-shot."
    if "significantly below" in marked:
        yield "⇓: significantly below zero-shot."


def _spread(comparison: Comparison) -> Iterator[str]:
    moved = [row for row in comparison.rows if row.draw_sd > 1e-9]
    if moved:
        most = max(moved, key=lambda row: row.draw_sd)
        yield (
            f"Draws move a method's mAP by a standard deviation of "
            f"{100 * statistics.median(row.draw_sd for row in moved):.1f} (median; at most {100 * most.draw_sd:.1f}: "
            f"{most.method} at X={most.shots})."
        )
    power = comparison.power
    if power:
        ten = f", with 10 draws {100 * power.with_ten:.1f}" if power.draws != 10 else ""
        yield (
            f"With {power.draws} draws this table can detect a difference of {100 * power.typical:.1f} mAP with 80 % "
            f"power{ten} (median of its rows, {100 * power.best:.1f} to {100 * power.worst:.1f}; one test at 5 %; "
            f"{100 * power.corrected:.1f} after the strictest correction)."
        )


def _incomplete(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        where = f"{row.dataset} X={row.shots} {row.method}"
        if row.reason:
            yield f"{where}: {row.draws} of {row.asked} draws; {row.reason}"
        if row.asked > 1 and row.difference and not row.difference.tested:
            yield f"{where}: not tested {'; '.join(row.difference.refused)}."
