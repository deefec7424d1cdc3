"""Seconds a cell takes to train: on the CPU, on another device, and there with several draws stacked (``fit_many``).

    python -m xshot_bench.benchmarks.bench_stacking --device cuda --draws 100
    python -m xshot_bench.benchmarks.bench_stacking flexclip flexclip:nogen --draws 1,5,10

Without METHODS, of all that stack. Tasks have random features in the shapes of OpenMoji's: time does not depend on what
they are. Each figure is the least of ``--repeats`` runs after one that is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import click
import torch
from tabulate import tabulate
from torch.nn.functional import normalize

from xshot_bench.benchmarks.ablation import parse_variant
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods.base import Pairs, Task

WIDTH, POSITIONS, SOURCE, TARGET, PER_CLASS, SHOTS = 384, 49, 29, 28, 20, 5


@click.command()
@click.argument("methods", nargs=-1)
@click.option("--device", default="cpu", show_default=True)
@click.option("--draws", default="10", show_default=True, help="How many are stacked; several numbers with commas.")
@click.option("--threads", default=1, show_default=True, help="Of the CPU.")
@click.option("--repeats", default=3, show_default=True)
def main(methods: tuple[str, ...], device: str, draws: str, threads: int, repeats: int) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    registry = Registry()
    stacked = [int(count) for count in draws.split(",")]
    names = methods or [e.name for e in registry.of("method") if getattr(registry.load("method", e.name), "stack", 0)]
    print(f"{SOURCE * PER_CLASS} source items, d = {WIDTH}, X = {SHOTS}; {threads} CPU threads; seconds a cell")
    places = dict.fromkeys(["cpu", device])
    rows = []
    for name in names:
        method = parse_variant(registry, name, {}).build(registry)
        cells = [seconds(partial(method.fit, made_up_task(0, on)), on, repeats) for on in places]
        for count in stacked:
            tasks = [made_up_task(draw, device) for draw in range(count)]
            cells.append(seconds(partial(method.fit_many, tasks), device, repeats) / count)
        rows.append([name, *(f"{cell:.3f}" for cell in cells)])
        click.echo(" ".join(rows[-1]), err=True)  # the table comes late
    headers = ["method", *(f"{on}, one by one" for on in places), *(f"{device}, {n} stacked" for n in stacked)]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def made_up_task(seed: int, device: str) -> Task:
    """Random unit features; the classes are those of OpenMoji in number and size."""
    generator = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> torch.Tensor:
        return normalize(torch.randn(*shape, WIDTH, generator=generator), dim=-1).to(device)

    def pairs(classes: torch.Tensor, per_class: int) -> Pairs:
        label = classes.repeat_interleave(per_class)
        return Pairs(rows(len(label)), rows(len(label)), label, tokens=rows(len(label), POSITIONS))

    classes = torch.arange(SOURCE + TARGET, device=device)
    return Task(
        source=pairs(classes[:SOURCE], PER_CLASS),
        support=pairs(classes[SOURCE:], SHOTS),
        validation=pairs(classes, 0),
        classes=tuple(map(str, range(SOURCE + TARGET))),
        class_text=rows(SOURCE + TARGET),
        source_classes=classes[:SOURCE],
        target_classes=classes[SOURCE:],
        validation_classes=classes[:7],
        candidates=classes[SOURCE:],
        shots=SHOTS,
        seed=seed,
        scale=10.0,
    )


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """The least of several runs, each until the device has finished."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    main()
