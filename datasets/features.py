"""Features that somebody published: a file or folder of arrays with names, and no pictures or texts."""

from __future__ import annotations

from typing import Self

from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets._dumps import Dump, make_dump
from xshot_bench.datasets._folder import first_of
from xshot_bench.datasets._sidecar import NAMES, read_sidecar, recognise
from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.feature_cache import FeatureSet


class Features(Dataset):
    """Published features (--root FILE_OR_DIR): .npz, .safetensors, .mat or HDF5; features.toml says what is what.

    Without that file the arrays are known by their names, where they are of a kind that is. Classes without names are
    called by their numbers.
    """

    name = "features"
    protocols = ("xshot", "kshot")
    has_features = True

    def __init__(self, dump: Dump) -> None:
        self._features, self.items, self.parts = dump.features, dump.items, dump.parts
        self.classes, self.digest, self.notes = dump.features.classes, dump.digest, dump.notes

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        root = options.root
        if root is None or not root.exists():
            raise InputError(f"the dataset {cls.name!r} needs a file or folder of features. Give it with --root PATH.")
        said = root if root.name in NAMES else first_of(root, *NAMES)
        sidecar = read_sidecar(said) if said else recognise(root)
        return cls(make_dump(sidecar.blocks(), sidecar.reading(options.skip_bad_items)))

    def picture(self, index: int) -> Image.Image:
        raise InputError(f"the dataset {self.name!r} has features and no pictures.")

    def features(self) -> FeatureSet:
        return self._features
