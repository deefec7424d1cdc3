"""A plan from the store alone, where a dataset or its encoder cannot be opened: enough to show what was computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from xshot_bench import InputError
from xshot_bench.benchmarks.invocations import Invocations
from xshot_bench.benchmarks.plan import Material, Plan, variants_of
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.feature_cache import FeatureOptions
from xshot_bench.datasets.splitting import Gallery, Roles, Shots, Split

ABSENT = "this dataset was not opened"


class AbsentDataset(Dataset):
    """Stands for a dataset that cannot be opened: it has no items."""

    items = ()
    classes = ()
    digest = ""

    @classmethod
    def open(cls, options: DatasetOptions) -> Self:
        raise InputError(ABSENT)

    def picture(self, index: int) -> Image.Image:
        raise InputError(ABSENT)


@dataclass(frozen=True)
class AbsentSplit(Split):
    """A split of which the digest is known, and no more."""

    draws = ()
    max_shots = 0

    def roles(self, shots: Shots, draw: int, gallery: Gallery) -> Roles:
        raise InputError(ABSENT)


def recalled(suite: Suite, registry: Registry, store: Store) -> Plan | None:
    """The plan of an invocation of this very suite, as far as there are records of it; None where there are none.

    Cells of a method whose source has changed since are left out: they would be other cells now.
    """
    known = Invocations(store).known(suite)
    records = {
        record.cell.digest: record
        for record in store.records(known.cells if known else ())
        if record.cell.code == registry.code_digest("method", record.cell.plugin)
    }
    if not records:
        return None
    found = {record.cell.dataset: record.cell for record in records.values()}
    materials = tuple(
        Material(name, AbsentDataset(), None, AbsentSplit(name, cell.split), Path(cell.features), FeatureOptions())
        for name, cell in found.items()
    )
    return Plan(
        suite=suite.model_copy(update={"oracle": False}),  # known labels are in the dataset alone
        variants=variants_of(suite, registry),
        materials=materials,
        cells=tuple(record.cell for record in records.values()),
        records=records,
        jobs=(),
    )
