"""How fast is encoding, end to end, beside the bare forward passes? OpenMoji with lite0-minilm, one run.

    python -m xshot_bench.benchmarks.bench_encoding

Bare: pictures prepared beforehand, in batches through the encoder, and the texts. End to end: ``load_features`` into
an empty cache: pictures drawn, prepared, encoded, written, checked and opened. The two take turns, round by round, so
that whatever else the machine does falls on both; then the whole set is encoded once.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from PIL import Image

from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM
from xshot_bench.datasets.openmoji import OpenMoji
from xshot_bench.datasets.splitting import Protocol, Split


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

    def split(self, protocol: Protocol = "xshot", variant: str = "") -> Split:
        return self.whole.split(protocol, variant)


def end_to_end(dataset: Dataset, encoder: Lite0MiniLM) -> float:
    """Seconds to encode a dataset into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        load_features(dataset, encoder, Path(cache))
        return time.perf_counter() - start


def bare(batches: list[torch.Tensor], texts: list[str], encoder: Lite0MiniLM) -> float:
    """Seconds of the forward passes alone."""
    start = time.perf_counter()
    for batch in batches:
        encoder.encode_images(batch)
    encoder.encode_texts(texts)
    return time.perf_counter() - start


@click.command()
@click.option("--items", default=320, show_default=True, help="Items in a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the median ratio counts.")
def main(items: int, rounds: int) -> None:
    """Print seconds of each round, the median ratio, and seconds and CPU seconds for the whole set."""
    encoder, whole = Lite0MiniLM.open(""), OpenMoji.open(DatasetOptions())
    part = Part(whole, items)
    batches = list(
        torch.stack([encoder.preprocess(part.picture(i)) for i in range(len(part.items))]).split(encoder.batch_size)
    )
    texts = [*(item.text for item in part.items), *(text for texts in part.class_prompts() for text in texts)]
    bare(batches[:2], texts[:8], encoder)
    ratios = []
    for number in range(rounds):
        seconds = (
            bare(batches, texts, encoder),
            end_to_end(part, encoder),
            bare(batches, texts, encoder),
        )
        ratios.append((seconds[0] + seconds[2]) / 2 / seconds[1])
        print(f"round {number}: bare {seconds[0]:.2f} s, end to end {seconds[1]:.2f} s, bare {seconds[2]:.2f} s")
    print(f"speed end to end over bare: {statistics.median(ratios):.3f} (median of {rounds} rounds)")
    cpu = time.process_time()
    print(f"all {len(whole.items)} items: {end_to_end(whole, Lite0MiniLM.open('')):.1f} s", end=", ")
    print(f"{time.process_time() - cpu:.1f} CPU s, weights loaded anew, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
