"""Compares settings of methods on validation classes: how defaults are chosen without a look at target test items.

    python -m xshot_bench.benchmarks.tune flexclip "flexclip rounds=50" "flexclip:nogen gate_bias=0 steps=300"

The source classes of OpenMoji's default split are dealt into folds; each fold in turn plays the target classes of a
rehearsal (``Task.rehearsal``), and its held-out pairs are queries and gallery. All candidates meet the same rehearsals.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import click
import numpy as np

from xshot_bench.benchmarks import scoring
from xshot_bench.benchmarks.ablation import Variant, parse_variant
from xshot_bench.benchmarks.episode import Unlabelled, make_episode
from xshot_bench.benchmarks.live import LiveEncoder, encoded
from xshot_bench.benchmarks.metrics import average_precision
from xshot_bench.benchmarks.protocol import DIRECTIONS, Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods.base import Declined, Method, Need, Pairs, Task

FOLDS = 4
ROW = "{:54}" + "{:>20}" * 3 + "{:>7}"


@click.command()
@click.argument("candidates", nargs=-1, required=True)
@click.option("--shots", default="0,1,5", help="Three values of X, for the table's columns.")
@click.option("--draws", default=1, help="Rehearsals of each fold.")
@click.option("--sharpness", default=scoring.SHARPNESS, help="Of the posteriors: the protocol's constant.")
def main(candidates: tuple[str, ...], shots: str, draws: int, sharpness: float) -> None:
    """Print the mean mAP of each candidate at each X, and its difference to the first with a standard error."""
    import torch

    torch.set_num_threads(1)
    scoring.SHARPNESS = sharpness
    registry = Registry()
    found: dict[str, dict[int, np.ndarray]] = {}
    columns = [int(x) for x in shots.split(",")]
    variants = {text: candidate(registry, text) for text in candidates}
    needed = frozenset().union(*(variant.build(registry).required for variant in variants.values()))
    games = {x: list(rehearsals(x, draws, needed)) for x in columns}
    click.echo(ROW.format("candidate: mAP (difference, standard error)", *(f"X={x}" for x in columns), "s/fit"))
    for text, variant in variants.items():
        started = time.process_time()
        scores = {x: [play(variant, registry, *game) for game in games[x]] for x in columns}
        seconds = (time.process_time() - started) / sum(map(len, games.values()))
        for rule in dict.fromkeys(name for x in columns for result in scores[x] for name in result):
            mine = {x: np.array([result.get(rule, np.nan) for result in scores[x]]) for x in columns}
            first = found.setdefault(rule, mine)
            cells = [_cell(mine[x], first[x]) for x in columns]
            click.echo(ROW.format(f"{text} [{rule}]", *cells, f"{seconds:.1f}"))


def rehearsals(shots: int, draws: int, needed: frozenset[Need] = frozenset()) -> Iterator[tuple[Task, Pairs]]:
    """A task and the held-out pairs of its target classes, for each draw and fold of the source classes."""
    from xshot_bench.datasets.base import DatasetOptions
    from xshot_bench.datasets.encode import load_features
    from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM
    from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache
    from xshot_bench.datasets.openmoji import OpenMoji

    dataset = OpenMoji.open(DatasetOptions())
    encoder = Lite0MiniLM.open("")
    options = FeatureOptions(tokens=encoder.grid if "tokens" in needed else 0, pixels="pixels" in needed)
    features = load_features(dataset, encoder, default_cache(), options)
    live = LiveEncoder.of(dataset, "lite0-minilm").load((), "cpu") if "towers" in needed else None
    for draw in range(draws):
        task = make_episode(features, dataset.split(), Setting(shots, draw), live=live).task
        for fold in range(FOLDS):
            yield dataclasses.replace(task, validation_classes=task.source_classes[fold::FOLDS]).rehearsal(draw)


def candidate(registry: Registry, text: str) -> Variant:
    """``flexclip:nogen rounds=50`` -> the variant with these parameters."""
    name, *settings = text.split()
    plugin = name.partition(":")[0]
    return parse_variant(registry, name, {plugin: dict(setting.split("=", 1) for setting in settings)})


def play(variant: Variant, registry: Registry, task: Task, held_out: Pairs) -> dict[str, float]:
    """The mAP over both directions, by each scoring rule that the method knows; empty where it declines."""
    method = variant.build(registry)
    try:
        method.fit(task)
    except Declined:
        return {}
    scores, plain = {}, "pairs" if method.scoring == "pairs" else "cosine"
    for rule in (plain, "posterior") if hasattr(method, "score_by") else (method.scoring,):
        if hasattr(method, "score_by"):
            method.score_by = rule
        scores[rule] = mean_ap(method, task, held_out)
    return scores


def mean_ap(method: Method, task: Task, items: Pairs) -> float:
    """mAP@all of ``items`` against each other, the mean of both directions."""
    shown = Unlabelled(items.image, items.text, items.tokens, items.texts, items.pixels)
    task, (seen,) = encoded(method, task, shown)
    label = items.label.numpy()
    blocks = [np.concatenate(list(scoring.score_blocks(method, task, seen, seen, way))) for way in DIRECTIONS]
    return float(np.mean([average_precision(scores, label, label).mean() for scores in blocks]))


def _cell(mine: np.ndarray, first: np.ndarray) -> str:
    difference = mine - first
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
    return f"{mine.mean():.3f} ({difference.mean():+.3f} {error:.3f})"


if __name__ == "__main__":
    main()
