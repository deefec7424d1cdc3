"""How long FLEX-CLIP takes on a task of OpenMoji's size: one cell, its stages, and several draws stacked.

python -m xshot_bench.benchmarks.bench_flexclip --threads 1
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import click
import torch
from torch.nn.functional import normalize

from xshot_bench.methods.base import Pairs, Task
from xshot_bench.methods.flexclip import FlexClip

WIDTH, SOURCE, TARGET, PER_CLASS = 384, 29, 28, 20
VARIANTS = {"full": FlexClip(), "nogen": FlexClip(generation="none"), "vae": FlexClip(generation="vae")}


@click.command()
@click.option("--threads", default=1)
@click.option("--repeats", default=3)
@click.option("--device", default="cpu")
def main(threads: int, repeats: int, device: str) -> None:
    """Print seconds a cell: the least of ``repeats`` runs."""
    torch.set_num_threads(threads)
    print(f"{SOURCE * PER_CLASS} source items, d = {WIDTH}, X = 5, {threads} threads, {device}; seconds a cell")
    tasks = [made_up_task(draw, device) for draw in range(10)]
    for name, method in VARIANTS.items():
        print(f"  {name}: {seconds(partial(method.fit, tasks[0]), repeats):.2f}")
    for draws in (1, 2, 5, 10):
        together = seconds(partial(FlexClip().fit_many, tasks[:draws]), repeats)
        print(f"  {draws} draws stacked: {together / draws:.2f}")


def made_up_task(seed: int, device: str) -> Task:
    """Random features in the shapes of OpenMoji's: time does not depend on what they are."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int) -> torch.Tensor:
        return normalize(torch.randn(count, WIDTH, generator=generator), dim=1).to(device)

    def pairs(classes: torch.Tensor, per_class: int) -> Pairs:
        label = classes.repeat_interleave(per_class)
        return Pairs(rows(len(label)), rows(len(label)), label)

    classes = torch.arange(SOURCE + TARGET, device=device)
    return Task(
        source=pairs(classes[:SOURCE], PER_CLASS),
        support=pairs(classes[SOURCE:], 5),
        validation=pairs(classes, 0),
        classes=tuple(map(str, range(SOURCE + TARGET))),
        class_text=rows(SOURCE + TARGET),
        source_classes=classes[:SOURCE],
        target_classes=classes[SOURCE:],
        validation_classes=classes[:7],
        candidates=classes[SOURCE:],
        shots=5,
        seed=seed,
        scale=10.0,
    )


def seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
