"""Datasets that lie in a user's files: pictures with their texts, or published features in their place."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets._candidates import Candidate, usable
from xshot_bench.datasets._dumps import Dump
from xshot_bench.datasets.base import Dataset, DatasetOptions, Item
from xshot_bench.datasets.feature_cache import FeatureSet
from xshot_bench.datasets.pictures import check_pictures, decode, find_pictures
from xshot_bench.datasets.splitting import Part


@dataclass(frozen=True)
class Pictures:
    """Good pairs of a folder: ``files`` are the items' pictures, in their order. Else as in `Dataset`."""

    files: tuple[Path, ...]
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    digest: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Path, good: Sequence[Candidate], classes: Sequence[str], notes: tuple[str, ...] = ()) -> Self:
        """The candidates that are good, as they are."""
        content = [(c.id, c.text, c.label, c.picture) for c in good]
        return cls(
            files=tuple(root / c.file for c in good),
            items=tuple(Item(c.id, c.text, c.label) for c in good),
            classes=tuple(classes),
            parts={c.id: cast("Part", c.part) for c in good if c.part},
            digest=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
            notes=notes,
        )


class FiledDataset(Dataset):
    """What is the same for all datasets in files. No dataset itself.

    official: the number of items that each part has in the published set; a note says where this copy differs.
    """

    official: Mapping[str, int] = {}

    def __init__(self, content: Pictures | Dump) -> None:
        self._content = content
        self.items, self.classes, self.parts = content.items, content.classes, content.parts
        self.digest, self.has_features = content.digest, isinstance(content, Dump)
        self.notes = (*content.notes, *_totals(content.parts.values(), self.official))

    def picture(self, index: int) -> Image.Image:
        if isinstance(self._content, Dump):
            raise InputError(f"the folder of {self.name!r} has features and no pictures.")
        return decode(self._content.files[index].read_bytes())

    def features(self) -> FeatureSet:
        return self._content.features if isinstance(self._content, Dump) else super().features()


def checked_pictures(
    root: Path, found: Sequence[Candidate], classes: Sequence[str], options: DatasetOptions, notes: tuple[str, ...] = ()
) -> Pictures:
    """The pairs of a published set. `InputError` with all bad ones, unless they are left out; a note on repetitions.

    A published set is taken as it is, so a picture that it has twice is said and not refused.
    """
    _check_entries(found)
    check_pictures(root, found, options.cache)
    good, left_out = usable(found, options.skip_bad_items)
    again = len(good) - len({candidate.picture for candidate in good})
    repeated = (f"{again} items have a picture that another item has too",) if again else ()
    return Pictures.of(root, good, classes, (*notes, *left_out, *repeated))


def listed_pictures(
    root: Path, found: Sequence[Candidate], classes: Sequence[str], options: DatasetOptions, notes: tuple[str, ...] = ()
) -> Pictures:
    """As `checked_pictures`, of a set that is too large to be read beforehand: sizes stand for the files' contents."""
    _check_entries(found)
    find_pictures(root, found)
    good, left_out = usable(found, options.skip_bad_items)
    return Pictures.of(root, good, classes, (*notes, *left_out))


def _check_entries(found: Sequence[Candidate]) -> None:
    for candidate in found:
        if not candidate.problem and not candidate.text.strip():
            candidate.problem = "its text is empty"
    first: dict[str, str] = {}
    for candidate in found:
        if not candidate.problem and first.setdefault(candidate.id, candidate.where) != candidate.where:
            candidate.problem = f"its id {candidate.id[:80]!r} is that of {first[candidate.id]} too"


def _totals(parts: Iterable[str], official: Mapping[str, int]) -> tuple[str, ...]:
    """A note where the parts have other numbers of items than the official ones."""
    counts = Counter(parts)
    if all(counts[part] == number for part, number in official.items()):
        return ()
    have, expected = (", ".join(f"{numbers[part]:,} {part}" for part in official) for numbers in (counts, official))
    return (f"it has {have} items; the published set has {expected}",)
