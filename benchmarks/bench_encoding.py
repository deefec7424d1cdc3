"""How fast is encoding, end to end, beside the bare forward passes?

    python -m xshot_bench.benchmarks.bench_encoding
    python -m xshot_bench.benchmarks.bench_encoding --model ViT-B-16 --device cuda --items 10000 --rounds 3

OpenMoji with lite0-minilm, or JPEG files of a usual photograph's size with a model of open_clip at random weights.

Bare: pictures prepared beforehand, in batches through the encoder, and the texts. End to end: ``load_features`` into
an empty cache: pictures read, prepared, encoded, written, checked and opened. The two take turns, round by round, so
that whatever else the machine does falls on both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from PIL import Image

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


def end_to_end(dataset: Dataset, encoder: Encoder) -> float:
    """Seconds to encode a dataset into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        load_features(dataset, encoder, Path(cache))
        return time.perf_counter() - start


def bare(batches: list[torch.Tensor], texts: list[str], encoder: Encoder) -> float:
    """Seconds of the forward passes alone."""
    start = time.perf_counter()
    for batch in batches:
        encoder.encode_images(batch)
    for first in range(0, len(texts), 256):
        encoder.encode_texts(texts[first : first + 256])
    return time.perf_counter() - start


def compare(dataset: Dataset, encoder: Encoder, rounds: int) -> None:
    """Print seconds and items per second of each round, and the median ratio."""
    count = len(dataset.items)
    pictures = torch.stack([encoder.preprocess(dataset.picture(n)) for n in range(count)])
    batches = list(pictures.split(encoder.batch_size))
    texts = [item.text for item in dataset.items] + [text for texts in dataset.class_prompts() for text in texts]
    bare(batches[:2], texts[:8], encoder)
    ratios = []
    for number in range(rounds):
        seconds = bare(batches, texts, encoder), end_to_end(dataset, encoder), bare(batches, texts, encoder)
        between = (seconds[0] + seconds[2]) / 2
        ratios.append(between / seconds[1])
        print(
            f"round {number}: bare {seconds[0]:.2f} s, end to end {seconds[1]:.2f} s, bare {seconds[2]:.2f} s; "
            f"items/s: bare {count / between:.1f}, end to end {count / seconds[1]:.1f}"
        )
    print(f"speed end to end over bare: {statistics.median(ratios):.3f} (median of {rounds} rounds)")


def whole_openmoji() -> None:
    """Print seconds and CPU seconds of encoding all of it once, weights loaded anew."""
    from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM

    whole, start = OpenMoji.open(DatasetOptions()), time.process_time()
    print(f"all {len(whole.items)} items: {end_to_end(whole, Lite0MiniLM.open('')):.1f} s", end=", ")
    print(f"{time.process_time() - start:.1f} CPU s without the workers', {torch.get_num_threads()} threads")


@click.command()
@click.option("--model", help="A model of open_clip. [default: lite0-minilm, on OpenMoji]")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True)
@click.option("--items", default=320, show_default=True, help="Items in a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the median ratio counts.")
def main(model: str | None, device: str, precision: str, items: int, rounds: int) -> None:
    """Print the speed of encoding, end to end and of the forward passes alone, and their ratio."""
    if model:
        with tempfile.TemporaryDirectory() as name:
            encoder = random_clip(model, Path(name), device, cast("Precision", precision))
            compare(Photographs(Path(name), items), encoder, rounds)
        return
    from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM

    compare(Part(OpenMoji.open(DatasetOptions()), items), Lite0MiniLM.open("", device), rounds)
    whole_openmoji()


if __name__ == "__main__":
    main()
