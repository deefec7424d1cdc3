"""``--tune``: a suite with the parameters that were found for its methods on each of its datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import tuned_name
from xshot_bench.benchmarks.executors import Placement
from xshot_bench.benchmarks.plan import Inputs, features_of, needs_of, open_material, variants_of
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.benchmarks.tuning.policy import Progress, Tuned, Tuner, Untunable, search_of
from xshot_bench.benchmarks.tuning.trials import Trials

logger = logging.getLogger(__name__)


def tuners(
    suite: Suite,
    registry: Registry,
    store: Store,
    inputs: Inputs,
    placement: Placement,
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Tuner]]:
    """One for each dataset of the suite, by name; features that are not in the cache are encoded."""
    needed = needs_of(variants_of(suite, registry), registry)
    trials = Trials(store.folder)
    for name in suite.datasets:
        material = open_material(name, suite, registry, inputs, needed)
        features_of(material, inputs, progress)
        data = f"{name} by {suite.encoder}" if material.encoder else name
        yield name, Tuner(registry, trials, data, material, inputs.device, placement)


def tune_suite(
    suite: Suite,
    registry: Registry,
    of_datasets: Iterator[tuple[str, Tuner]],
    progress: Progress | None = None,
    *,
    compute: bool = True,
) -> tuple[Suite, list[Tuned]]:
    """The suite with what its `tuners` found, and how. Methods without a ``search`` stay as they are, and who declines.

    `InputError` where no method has one, a dataset has nothing to tune on, or without ``compute`` a trial is missing.
    """
    if suite.ablate or suite.sweep:
        raise InputError("--tune goes with --methods; the rows of --ablate and --sweep are compared as they are.")
    variants = [variant for variant in variants_of(suite, registry) if search_of(variant, registry)]
    if not variants:
        raise InputError(
            f"none of the methods {', '.join(suite.methods)} declares a search, so there is nothing to --tune. "
            "A method says what may be chosen as  search = {'parameter': (value, value, ...)}."
        )
    parameters: dict[str, dict[str, dict[str, Any]]] = {}
    found: list[Tuned] = []
    # all are encoded first: from the first trial on this process may compute with one thread
    for name, tuner in list(of_datasets):
        if compute:
            tuner.compute(variants, progress)
        here = []
        for variant in variants:
            try:
                here.append(tuner.tuned(variant))
            except Untunable as reason:
                logger.warning("%s It runs as it is.", reason)
        parameters[name] = {tuned_name(tuned.variant): tuned.setting for tuned in here}
        found += here
    renamed = {tuned.variant.name: tuned_name(tuned.variant) for tuned in found}
    baseline = renamed.get(suite.baseline, suite.baseline)
    return suite.model_copy(update={"tuned": parameters, "baseline": baseline}), found
