"""How fast is encoding, end to end, beside the bare forward passes?

    python -m xshot_bench.benchmarks.bench_encoding
    python -m xshot_bench.benchmarks.bench_encoding --model ViT-B-16 --device cuda --items 10000 --rounds 3

OpenMoji with lite0-minilm, or JPEG files of a usual photograph's size with a model of open_clip at random weights.

Bare: pictures prepared beforehand, in batches through the encoder, and the texts; in a process as torch leaves it, and
in one where freed memory is kept as ours does (``datasets/allocation.py``). End to end: ``load_features`` into an empty
cache: pictures read, prepared, encoded, written, checked and opened. The three take turns, each in a process of its
own, so that whatever else the machine does falls on all.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from xshot_bench.datasets.allocation import keep_freed_memory
from xshot_bench.datasets.base import Dataset, DatasetOptions, Item
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.encoders.base import Encoder, Precision
from xshot_bench.datasets.openmoji import OpenMoji

FILES = 200  # different photographs; they are read again and again
SIZE = (500, 375)


class Part(Dataset):
    """The first items of a dataset, with its classes."""

    def __init__(self, whole: Dataset, size: int) -> None:
        self.whole, self.items, self.classes = whole, whole.items[:size], whole.classes
        self.digest = f"{whole.digest} {size}"

    @classmethod
    def open(cls, options: DatasetOptions) -> Part:
        return cls(OpenMoji.open(options), 1)

    def picture(self, index: int) -> Image.Image:
        return self.whole.picture(index)


class Photographs(Dataset):
    """JPEG files of noise as smooth as photographs are, so of about their size: 500 x 375 pixels, about 60 kB."""

    classes = ("photograph",)
    digest = "photographs"

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.items = tuple(
            Item(str(n), f"a photograph of the things with number {n}", "photograph") for n in range(size)
        )
        rng = np.random.default_rng(0)
        for number in range(min(size, FILES)):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
                SIZE, Image.Resampling.BICUBIC
            )
            fine = np.asarray(coarse, np.int16) + rng.normal(0, 8, (*SIZE[::-1], 3)).astype(np.int16)
            Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)

    @classmethod
    def open(cls, options: DatasetOptions) -> Photographs:
        return cls(options.root or Path(), 1)

    def picture(self, index: int) -> Image.Image:
        with Image.open(self.folder / f"{index % FILES}.jpg") as picture:
            return picture.convert("RGB")


def random_clip(model: str, folder: Path, device: str, precision: Precision) -> Encoder:
    """A model of open_clip at random weights, which lie in a file as real ones do."""
    import open_clip
    from safetensors.torch import save_file

    from xshot_bench.datasets.encoders.open_clip import OpenClip

    file = folder / "weights.safetensors"
    save_file(open_clip.create_model(model, pretrained_text=False).state_dict(), file)
    return OpenClip.open(f"{model}@{file}", device, precision)


@dataclass(frozen=True)
class Job:
    """What is encoded: so many items, by lite0-minilm or by a model of open_clip."""

    model: str | None
    device: str
    precision: Precision
    items: int

    def open(self, folder: Path) -> tuple[Dataset, Encoder]:
        """The data and the encoder, its weights loaded; files are made in ``folder``."""
        dataset: Dataset
        if self.model:
            dataset, encoder = (
                Photographs(folder, self.items),
                random_clip(self.model, folder, self.device, self.precision),
            )
        else:
            from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM

            dataset = Part(OpenMoji.open(DatasetOptions()), self.items)
            encoder = Lite0MiniLM.open("", self.device)
        encoder.encode_images(encoder.preprocess(dataset.picture(0))[None])
        encoder.encode_texts([dataset.items[0].text])
        return dataset, encoder


def end_to_end(job: Job) -> float:
    """Seconds to encode a dataset into an empty cache."""
    with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as cache:
        dataset, encoder = job.open(Path(files))
        start = time.perf_counter()
        load_features(dataset, encoder, Path(cache))
        return time.perf_counter() - start


def bare(job: Job) -> float:
    """Seconds of the forward passes alone."""
    with tempfile.TemporaryDirectory() as files:
        dataset, encoder = job.open(Path(files))
        pictures = torch.stack([encoder.preprocess(dataset.picture(n)) for n in range(len(dataset.items))])
    texts = [item.text for item in dataset.items] + [text for texts in dataset.class_prompts() for text in texts]
    start = time.perf_counter()
    for batch in pictures.split(encoder.batch_size):
        encoder.encode_images(batch)
    for first in range(0, len(texts), 256):
        encoder.encode_texts(texts[first : first + 256])
    return time.perf_counter() - start


def bare_keeping(job: Job) -> float:
    """The same where freed memory is kept."""
    keep_freed_memory()
    return bare(job)


def alone(work: Callable[[Job], float], job: Job) -> float:
    """What a fresh process measures."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(work, job).result()


@click.command()
@click.option("--model", help="A model of open_clip. [default: lite0-minilm, on OpenMoji]")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True)
@click.option("--items", default=1385, show_default=True, help="Items to encode; OpenMoji has 1385.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; the median counts.")
def main(model: str | None, device: str, precision: Precision, items: int, rounds: int) -> None:
    """Print the seconds of encoding, end to end and of the forward passes alone, and the ratios of speeds."""
    job = Job(model, device, precision, items)
    ways = (end_to_end, bare, bare_keeping)
    rows = [[alone(work, job) for work in ways] for _ in range(rounds)]
    table = [(n, *row, row[1] / row[0], row[2] / row[0]) for n, row in enumerate(rows, 1)]
    median = [statistics.median(column) for column in zip(*table, strict=True)]
    heads = ["round", "end to end s", "bare s", "bare, memory kept s", "speed to bare", "speed to bare, kept"]
    print(tabulate([*table, ("median", *median[1:])], heads, floatfmt=".2f"))


if __name__ == "__main__":
    main()
