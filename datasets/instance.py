"""The instance split: which text belongs to this very image, and which image to this text; several texts an image.

Each image is a class of its own, so what is relevant is the image's own texts, and the text's own image: a text that
another image has word for word is not relevant to this one, as in the published numbers. Equal texts have equal
features, so they tie, and ties are broken as everywhere (benchmarks/metrics.py), never by the order of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xshot_bench import InputError
from xshot_bench.datasets.splitting import Gallery, Part, Protocol, Roles, Shots, Split, digest_of

DRAWS = 10
FOLD = 1000  # test images in a fold, as the usual five folds of COCO
VARIANTS = ("", "fold1", "fold2", "fold3", "fold4", "fold5")


@dataclass(frozen=True)
class InstanceSplit(Split):
    """Test images with their texts, and the pairs that may be learnt from.

    train, val, test: image -> the ids of its items, one for each text; the first stands for the image.

    At X = 0 nothing is learnt. At X = "all" the pairs of ``train`` and ``val`` are the source, of which the images of
    ``val`` are for choosing hyper-parameters; they are pairs of other images than those tested, so there is no
    support, and a method that needs labelled items of the tested classes has none. A draw is a seed, no more.
    """

    protocol: ClassVar[Protocol] = "instance"
    takes_all: ClassVar[bool] = True

    train: dict[str, tuple[str, ...]]
    val: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]

    @property
    def draws(self) -> tuple[int, ...]:
        return tuple(range(DRAWS))

    @property
    def max_shots(self) -> int:
        return 0

    def roles(self, shots: Shots, draw: int, gallery: Gallery) -> Roles:
        learnt = shots == "all"
        source = self.train | self.val if learnt else {}
        images = tuple(ids[0] for ids in self.test.values())
        texts = tuple(item for ids in self.test.values() for item in ids)
        return Roles(
            source=tuple(item for ids in source.values() for item in ids),
            support=(),
            validation=(),
            image_queries=images,
            text_queries=texts,
            image_gallery=images,
            text_gallery=texts,
            source_classes=tuple(source),
            target_classes=tuple(self.test),
            validation_classes=tuple(self.val) if learnt else (),
            candidates=tuple(self.test),
        )


def make_split(
    name: str, variant: str, labels: Mapping[str, str], classes: Sequence[str], parts: Mapping[str, Part]
) -> InstanceSplit:
    """The split of the items ``labels`` (id -> image); ``parts`` (id -> part) says which are test items.

    ``fold1`` tests on the first thousand test images, ``fold2`` on the second, and so on. `InputError` where there are
    no test images, or not as many folds.
    """
    images: dict[Part, dict[str, list[str]]] = {"train": {}, "val": {}, "test": {}}
    for item, image in labels.items():
        images[parts.get(item, "train")].setdefault(image, []).append(item)
    test = list(images["test"].items())
    if variant:
        last = FOLD * int(variant.removeprefix("fold"))
        if len(test) < last:
            raise InputError(f"{name}/{variant} needs {last} test images; {name} has {len(test)}.")
        test = test[last - FOLD : last]
    if not test:
        raise InputError(f"the protocol 'instance' needs test images; {name} has none.")
    content: dict[str, Any] = {
        "name": f"{name}/{variant}" if variant else name,
        **{part: {image: tuple(ids) for image, ids in images[part].items()} for part in ("train", "val")},
        "test": {image: tuple(ids) for image, ids in test},
    }
    return InstanceSplit(digest=digest_of(content, ordered=True), **content)
