"""Suite -> cells, each new, done, declined or failed according to the store, and the jobs that would run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import Variant, ablation, distinct, parse_variant, sweep, tuned_name
from xshot_bench.benchmarks.episode import check_setting
from xshot_bench.benchmarks.live import LiveEncoder
from xshot_bench.benchmarks.protocol import VERSIONS, Setting
from xshot_bench.benchmarks.records import Cell, Record
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import Job, Setup
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.datasets.base import Dataset, DatasetOptions
from xshot_bench.datasets.encode import features_folder, load_features
from xshot_bench.datasets.encoders.base import Encoder, parse_encoder
from xshot_bench.datasets.feature_cache import PLAIN, FeatureOptions, FeatureSet
from xshot_bench.datasets.splitting import Shots, Split
from xshot_bench.methods.base import Need

OWN_FEATURES = "its own features"  # what stands for the encoder of a dataset that comes as features


@dataclass(frozen=True)
class Inputs:
    """Where a suite's data lies: ``roots`` (dataset name -> folder), the feature cache, the device.

    wanted: of the features; its tokens go to methods that need them. batch_size: of encoding; None is automatic.
    """

    roots: dict[str, Path]
    skip_bad_items: bool
    cache: Path
    device: str
    wanted: FeatureOptions
    batch_size: int | None = None


@dataclass(frozen=True)
class Material:
    """A dataset with its class split, ready to be cut into episodes. ``name`` is e.g. ``openmoji/b``.

    encoder: None where the dataset comes as features. options: with the tokens and pixels that the suite's methods
        need. encoder_name: the encoder as ``--encoder`` names it.
    """

    name: str
    dataset: Dataset
    encoder: Encoder | None
    split: Split
    features: Path
    options: FeatureOptions
    encoder_name: str = ""

    @property
    def encoded(self) -> bool:
        """Whether the features are in the cache."""
        return all(place.exists() for place in (self.features, *self.options.extras(self.features).values()))


@dataclass(frozen=True)
class Plan:
    """What a suite comes to: its cells in table order, the records there are, and the jobs left to run."""

    suite: Suite
    variants: tuple[Variant, ...]
    materials: tuple[Material, ...]
    cells: tuple[Cell, ...]
    records: dict[str, Record]
    jobs: tuple[Job, ...]

    def counts(self) -> dict[str, int]:
        """Cells by state: ``new``, ``done``, ``declined``, ``failed``."""
        states = Counter(self.state(cell) for cell in self.cells)
        return {state: states[state] for state in ("new", "done", "declined", "failed")}

    def state(self, cell: Cell) -> str:
        record = self.records.get(cell.digest)
        return record.status if record else "new"

    def kept(self, name: str) -> str:
        """The name under which a variant is run and shown."""
        return next((variant.name for variant in self.variants if name in variant.also), name)


def variants_of(suite: Suite, registry: Registry) -> tuple[Variant, ...]:
    """Every configuration that the suite asks for, once, in table order."""
    asked = [parse_variant(registry, name, suite.settings) for name in suite.methods]
    if suite.ablate:
        asked += ablation(registry, suite.ablate, suite.settings)
    for series in suite.sweep:
        asked += sweep(registry, series, suite.settings)
    variants = distinct(registry, asked)
    unknown = set(suite.settings) - {variant.plugin for variant in variants}
    if unknown:
        raise InputError(f"--set names {sorted(unknown)[0]!r}, which is not among the methods of this run.")
    tuned = {name for found in suite.tuned.values() for name in found}
    renamed = {variant.name: tuned_name(variant) for variant in variants if tuned_name(variant) in tuned}
    variants = tuple(replace(variant, name=renamed.get(variant.name, variant.name)) for variant in variants)
    if suite.baseline not in tuned:
        parse_variant(registry, suite.baseline, {})  # it may be left out of the run, but must be one
    return variants


def make_plan(suite: Suite, registry: Registry, store: Store, inputs: Inputs, force: bool = False) -> Plan:
    """Resolve every name of the suite and look its cells up in the store. Computes nothing."""
    variants = variants_of(suite, registry)
    needed = needs_of(variants, registry)
    materials = [open_material(name, suite, registry, inputs, needed) for name in suite.datasets]

    cells: list[Cell] = []
    jobs: list[Job] = []
    records: dict[str, Record] = {}
    for material in materials:
        for shots in suite.shots:
            for variant in (_tuned(suite, variant, material) for variant in variants):
                group = _draws(suite, registry, variant, material, shots)
                cells += group
                todo = []
                for cell in group:
                    record = store.record(cell.digest)
                    if record:
                        records[cell.digest] = record
                    if force or record is None or record.status == "failed":
                        todo.append(cell)
                together = type(variant.build(registry)).stack and inputs.device != "cpu"
                bunches = [tuple(todo)] if together and todo else [(cell,) for cell in todo]
                setup = setup_of(material, variant, registry, inputs.device)
                jobs += [Job(setup, bunch) for bunch in bunches]
    return Plan(suite, variants, tuple(materials), tuple(cells), records, tuple(jobs))


def encode_missing(plan: Plan, inputs: Inputs, progress: Callable[[str, int, int], None]) -> None:
    """Encode the datasets whose features are not in the cache, if a job or the row of known labels needs them."""
    needed = {job.setup.features for job in plan.jobs}
    for material in plan.materials:
        if plan.suite.oracle or material.features in needed:
            features_of(material, inputs, progress)


def features_of(
    material: Material, inputs: Inputs, progress: Callable[[str, int, int], None] | None = None
) -> FeatureSet:
    """The features of a dataset with what its methods need, from the cache or else encoded now."""
    return load_features(
        material.dataset,
        material.encoder,
        inputs.cache,
        material.options,
        batch_size=inputs.batch_size,
        progress=progress,
    )


def open_material(name: str, suite: Suite, registry: Registry, inputs: Inputs, needed: frozenset[Need]) -> Material:
    """A dataset of the suite, opened but not encoded, with what methods that have these needs are shown of pictures."""
    base, _, variant = name.partition("/")
    entry = registry.entry("dataset", base)
    cls = cast("type[Dataset]", registry.load("dataset", base))
    root = inputs.roots.get(entry.name, inputs.roots.get(""))
    dataset = cls.open(DatasetOptions(root, inputs.skip_bad_items, inputs.cache))
    split = dataset.split(suite.protocol, variant)
    if suite.draws > len(split.draws):
        raise InputError(
            f"--draws {suite.draws}: split {split.name} has {len(split.draws)} support draws. Ask for fewer."
        )
    for shots in suite.shots:
        check_setting(split, Setting(shots, split.draws[0], suite.gallery))
    encoder = None
    if not dataset.has_features:
        encoder_name, precision, argument = parse_encoder(suite.encoder)
        encoder = cast("type[Encoder]", registry.load("encoder", encoder_name)).open(argument, inputs.device, precision)
    options = PLAIN
    if encoder:
        tokens = min(inputs.wanted.tokens, encoder.grid) if "tokens" in needed else 0
        options = replace(inputs.wanted, tokens=tokens, pixels="pixels" in needed)
    return Material(
        name, dataset, encoder, split, features_folder(dataset, encoder, inputs.cache, options), options, suite.encoder
    )


def needs_of(variants: Sequence[Variant], registry: Registry) -> frozenset[Need]:
    """What any of the methods needs."""
    return frozenset().union(*(variant.build(registry).required for variant in variants))


def options_of(material: Material, variant: Variant, registry: Registry) -> FeatureOptions:
    """What a method gets of the features: tokens and pixels only if it needs them."""
    needed, options = variant.build(registry).required, material.options
    tokens = options.tokens if "tokens" in needed else 0
    return replace(options, tokens=tokens, pixels=options.pixels and "pixels" in needed)


def setup_of(material: Material, variant: Variant, registry: Registry, device: str) -> Setup:
    """What a process needs to run a method on a dataset; the encoder itself only if the method needs its towers."""
    options, encoder = options_of(material, variant, registry), None
    if material.encoder and "towers" in variant.build(registry).required:
        encoder = LiveEncoder.of(material.dataset, material.encoder_name)
    return Setup(variant, material.features, options, material.split, registry.plugins, device, encoder)


def _tuned(suite: Suite, variant: Variant, material: Material) -> Variant:
    """The variant with the parameters that were found for it on this dataset, if any were."""
    found = suite.tuned.get(material.name, {}).get(variant.name, {})
    return replace(variant, overrides=dict(variant.overrides) | found)


def _draws(suite: Suite, registry: Registry, variant: Variant, material: Material, shots: Shots) -> list[Cell]:
    """The cells of one method at one X: one for each draw."""
    first = Cell(
        method=variant.name,
        parameters=variant.build(registry).parameters(),
        code=registry.code_digest("method", variant.plugin),
        dataset=material.name,
        encoder=suite.encoder if material.encoder else OWN_FEATURES,
        features=options_of(material, variant, registry).name(material.features),
        split=material.split.digest,
        gallery=suite.gallery,
        shots=shots,
        draw=0,
        protocol=VERSIONS[material.split.protocol],
    )
    return [first.model_copy(update={"draw": draw}) for draw in material.split.draws[: suite.draws]]
