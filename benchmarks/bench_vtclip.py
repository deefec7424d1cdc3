"""What VT-CLIP's cheap evaluation saves beside the plain one, for the same scores: time and peak memory. Linux only.

    python -m xshot_bench.benchmarks.bench_vtclip --threads 1

Times are taken in turn and compared as a ratio; memory is what the peak of a fresh process grows by.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn.functional import normalize

from xshot_bench.methods.vtclip.attention import Guide, Shape

WAYS = ("plain", "cheap")
ROW = "{:44}" + "{:>10}" * 7
PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Case:
    """Images at once, texts, length of the features, width of the attention, its heads, positions of an image."""

    images: int
    texts: int
    features: int
    width: int
    heads: int
    positions: int = 49

    def __str__(self) -> str:
        return f"{self.images} x {self.texts}, d = {self.features}, w = {self.width}, h = {self.heads}"

    @torch.no_grad()
    def evaluate(self, way: str) -> tuple[float, float, Tensor]:
        """Seconds, megabytes that the peak grew by, and the scores."""
        generator = torch.Generator().manual_seed(0)
        guide = Guide(Shape(self.features, self.width, self.heads, 1, False, False), 0.5, generator)
        for parameter in guide.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / self.features**0.5)
        sizes = [self.images], [self.texts], [0], [self.images, self.positions]
        rows = [normalize(torch.randn(*size, self.features, generator=generator), dim=-1) for size in sizes]
        (PROCESS / "clear_refs").write_text("5")  # forget the peak so far
        before, started = _megabytes("VmRSS"), time.perf_counter()
        scores = getattr(guide, way)(*rows)
        return time.perf_counter() - started, _megabytes("VmHWM") - before, scores


CASES = (
    Case(256, 300, 384, 64, 1),  # scoring OpenMoji, as VT-CLIP's defaults have it
    Case(64, 100, 512, 512, 1),
    Case(64, 1000, 1024, 1024, 1),  # ImageNet's classes, in the space of CLIP's RN50
    Case(64, 100, 512, 512, 2),
    Case(64, 100, 512, 512, 4),
    Case(64, 100, 512, 512, 8),  # h·P is close to d: nothing is saved, and the method takes the plain way
)


@click.command()
@click.option("--threads", default=1)
@click.option("--repeats", default=5, help="Evaluations of each way; the fastest counts.")
def main(threads: int, repeats: int) -> None:
    """Print milliseconds and megabytes of both ways, and the largest difference of the scores."""
    torch.set_num_threads(threads)
    print(f"49 positions, {threads} threads")
    print(ROW.format("images x texts", *("plain ms", "cheap ms", "ratio", "plain MB", "cheap MB", "ratio", "differ")))
    for case in CASES:
        seconds = dict.fromkeys(WAYS, float("inf"))
        scores: dict[str, Tensor] = {}
        for _ in range(repeats):
            for way in WAYS:
                took, _, scores[way] = case.evaluate(way)
                seconds[way] = min(seconds[way], took)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            memory = dict(zip(WAYS, pool.map(partial(_memory, case), WAYS, chunksize=1), strict=True))
        cells = [f"{1000 * seconds[way]:.0f}" for way in WAYS] + [f"{seconds['plain'] / seconds['cheap']:.1f}"]
        cells += [f"{memory[way]:.0f}" for way in WAYS] + [f"{memory['plain'] / memory['cheap']:.1f}"]
        print(ROW.format(str(case), *cells, f"{float((scores['plain'] - scores['cheap']).abs().max()):.0e}"))


def _memory(case: Case, way: str) -> float:
    torch.set_num_threads(1)
    return case.evaluate(way)[1]


def _megabytes(name: str) -> float:
    """A line of the process's status."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
