"""What a dataset holds: counts, text lengths, and what a random ranking scores on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from xshot_bench import InputError
from xshot_bench.benchmarks.metrics import expected_random_map
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.encoders.base import Encoder, parse_encoder
from xshot_bench.datasets.splitting import Split


@dataclass(frozen=True)
class TextLengths:
    """Texts in an encoder's tokens. cut: those longer than its ``context`` (0: no limit), which are cut there.

    distinct: different texts. naming: texts that hold the name of their class.
    """

    encoder: str
    context: int
    least: int
    median: float
    most: int
    cut: int
    distinct: int
    naming: int


@dataclass(frozen=True)
class Floor:
    """The expected mAP of a random ranking, in both directions, and what is ranked; accuracy of a random class.

    problem: why the split cannot be made; then there are no numbers.
    """

    protocol: str
    split: str
    gallery: str
    queries: int = 0
    searched: int = 0
    i2t: float = float("nan")
    t2i: float = float("nan")
    accuracy: float = float("nan")
    problem: str = ""


@dataclass(frozen=True)
class Description:
    """A dataset in numbers. classes: class -> part of the dataset's own split ("" for none) -> items.

    texts: None where the dataset comes as features; then image and text are their lengths.
    """

    name: str
    digest: str
    items: int
    parts: tuple[str, ...]
    classes: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    texts: TextLengths | None
    image: int | None
    text: int | None
    floors: tuple[Floor, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data; a number that there is not is None."""
        content = asdict(self)
        for floor in content["floors"]:
            floor |= {key: None for key in ("i2t", "t2i", "accuracy") if np.isnan(floor[key])}
        return content


def open_dataset(registry: Registry, name: str, options: DatasetOptions) -> Dataset:
    """The dataset of a name; a class split after a slash is left away."""
    return cast("type[Dataset]", registry.load("dataset", name.partition("/")[0])).open(options)


def describe(dataset: Dataset, encoder: Encoder, encoder_name: str) -> Description:
    """Count everything; the encoder only cuts texts to tokens."""
    counts: dict[str, Counter[str]] = {c: Counter() for c in dataset.classes}
    for item in dataset.items:
        counts[item.label][dataset.parts.get(item.id, "")] += 1
    features = dataset.features() if dataset.has_features else None
    present = {part for counter in counts.values() for part in counter}
    return Description(
        name=f"{dataset.name}-{dataset.edition}" if dataset.edition else dataset.name,
        digest=dataset.digest,
        items=len(dataset.items),
        parts=tuple(part for part in ("train", "val", "test", "") if part in present),
        classes={c: dict(counter) for c, counter in counts.items()},
        notes=dataset.notes,
        texts=None if features else _text_lengths(dataset, encoder, encoder_name),
        image=features.image.shape[1] if features else None,
        text=features.text.shape[1] if features else None,
        floors=tuple(_floors(dataset)),
    )


def _text_lengths(dataset: Dataset, encoder: Encoder, name: str) -> TextLengths:
    texts = [item.text for item in dataset.items]
    lengths = np.array(encoder.text_lengths(texts))
    naming = sum(dataset.in_words(item.label).lower() in item.text.lower() for item in dataset.items)
    return TextLengths(
        encoder=name,
        context=encoder.context,
        least=int(lengths.min()),
        median=float(np.median(lengths)),
        most=int(lengths.max()),
        cut=int((lengths > encoder.context).sum()) if encoder.context else 0,
        distinct=len(set(texts)),
        naming=naming,
    )


def _floors(dataset: Dataset) -> Iterator[Floor]:
    """Of each protocol's splits, in each gallery mode."""
    labels = dataset.labels
    for protocol in dataset.protocols:
        for variant in dataset.variants(protocol):
            try:
                split = dataset.split(protocol, variant)
            except InputError as error:
                yield Floor(protocol, f"{dataset.name}/{variant}".rstrip("/"), "", problem=str(error))
                continue
            yield from _floors_of(split, labels)


def _floors_of(split: Split, labels: dict[str, str]) -> Iterator[Floor]:
    number = {label: n for n, label in enumerate(sorted(set(labels.values())))}

    def of(ids: tuple[str, ...]) -> np.ndarray:
        return np.array([number[labels[item]] for item in ids])

    for gallery in split.galleries:
        roles = split.roles(0, split.draws[0], gallery)
        yield Floor(
            protocol=split.protocol,
            split=split.name,
            gallery=gallery,
            queries=len(roles.image_queries),
            searched=len(roles.text_gallery),
            i2t=expected_random_map(of(roles.image_queries), of(roles.text_gallery)),
            t2i=expected_random_map(of(roles.text_queries), of(roles.image_gallery)),
            accuracy=1 / len(roles.candidates),
        )


def open_encoder(registry: Registry, text: str) -> Encoder:
    """The encoder that ``--encoder`` names, on the CPU."""
    name, precision, argument = parse_encoder(text)
    return cast("type[Encoder]", registry.load("encoder", name)).open(argument, "cpu", precision)
