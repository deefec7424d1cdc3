"""The one policy by which parameters are chosen: so many settings of each method, all on the same rehearsals."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import Variant
from xshot_bench.benchmarks.executors import HERE, Placement, each
from xshot_bench.benchmarks.executors.guards import Lost
from xshot_bench.benchmarks.plan import Material, options_of, setup_of
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import Setup
from xshot_bench.benchmarks.tuning.trials import Attempt, Trial, Trials, attempt, games_of
from xshot_bench.datasets.feature_cache import FeatureOptions

TRIALS = 12  # settings of each method, the default among them
SEED = 0  # of the draw of the others

Progress = Callable[[str, int, int], None]  # told what is done, how many trials there are by now, and of how many


class Untunable(InputError):
    """A method declines every rehearsal of a dataset, or breaks down at its default."""


@dataclass(frozen=True)
class Tuned:
    """What came of it. trials: the default's first. ``chosen``: the best, of equals the earliest.

    before: of what was the default at the first tuning of which there are trials.
    """

    variant: Variant
    data: str
    trials: tuple[Trial, ...]
    before: Trial
    searched: Mapping[str, Sequence[Any]]

    @property
    def default(self) -> Trial:
        return self.trials[0]

    @property
    def chosen(self) -> Trial:
        return max(self.trials, key=self.score)

    @property
    def setting(self) -> dict[str, Any]:
        """The chosen values of what was searched."""
        return {name: self.chosen.parameters[name] for name in self.searched}

    @property
    def in_words(self) -> str:
        """What was chosen, and what for."""
        setting = ", ".join(f"{name}={value}" for name, value in self.setting.items()) or "nothing to choose"
        better = f"{100 * self.score(self.chosen):.1f} validation mAP, the default {100 * self.score(self.default):.1f}"
        return f"{self.variant.name} on {self.data}: {setting} ({len(self.trials)} trials: {better})"

    def score(self, trial: Trial) -> float:
        """The criterion: the mean over X of validation mAP, over those X that the default does not decline."""
        means = [trial.means.get(x, -math.inf) for x in self.default.scores]
        return sum(means) / len(means)


def search_of(variant: Variant, registry: Registry) -> dict[str, Sequence[Any]]:
    """What may be chosen: the method's ``search`` without what the variant sets itself. `InputError` for a bad one."""
    method = variant.build(registry)
    known = method.parameters()
    found = {name: values for name, values in type(method).search.items() if name not in variant.overrides}
    for name, values in found.items():
        if name not in known or known[name] not in values:
            what = f"no parameter {name!r}" if name not in known else f"{name}={known[name]!r}, which is not in it"
            raise InputError(f"the method {variant.plugin!r} declares search = {{{name!r}: ...}} but has {what}.")
    return found


def settings(variant: Variant, registry: Registry) -> list[Variant]:
    """The variant as it is, and others drawn from the product of its search; all of it where it has at most `TRIALS`.

    The draw does not depend on which setting is the default, only the last one makes room for it: so a default that
    was chosen from a draw is compared with the same others again.
    """
    search = search_of(variant, registry)
    shape = tuple(len(values) for values in search.values())
    if not shape:
        return [variant]
    known = variant.build(registry).parameters()
    own = int(np.ravel_multi_index([list(values).index(known[name]) for name, values in search.items()], shape))
    drawn = [int(i) for i in np.random.default_rng(SEED).permutation(math.prod(shape))[:TRIALS]]
    others = [i for i in drawn if i != own][: TRIALS - 1]
    found = [variant]
    for i in others:
        at = np.unravel_index(i, shape)
        values = {name: values[int(k)] for k, (name, values) in zip(at, search.items(), strict=True)}
        found.append(replace(variant, overrides=dict(variant.overrides) | values))
    return found


@dataclass(frozen=True)
class Tuner:
    """Tunes methods on one dataset, whose features are in the cache. ``data``: what the user knows it by."""

    registry: Registry
    trials: Trials
    data: str
    material: Material
    device: str = "cpu"
    placement: Placement = HERE
    _rehearsals: dict[FeatureOptions, str] = field(default_factory=dict)  # their digests
    _code: dict[str, str] = field(default_factory=dict)  # method -> digest
    _failed: dict[str, Trial] = field(default_factory=dict)

    def compute(self, variants: Iterable[Variant], progress: Progress | None = None) -> None:
        """Run the trials of all variants that are not known, and keep them. `InputError` where there are no games."""
        asked = [
            Attempt(self.setup(setting), self.data, setting is variant, self._digest(setting))
            for variant in variants
            for setting in settings(variant, self.registry)
        ]
        left = [one for one in asked if one.digest not in self.trials.known]
        with closing(each(attempt, left, self.placement)) as found:
            for done, (one, outcome) in enumerate(found, len(asked) - len(left) + 1):
                trial = one.lost(outcome.reason) if isinstance(outcome, Lost) else outcome
                if trial.failed:
                    self._failed[one.digest] = trial
                else:
                    self.trials.add(one.digest, trial)
                if progress:
                    progress(f"tuning on {self.data}", done, len(asked))

    def tuned(self, variant: Variant) -> Tuned:
        """What came of a variant's trials; `InputError` where they were not made, `Untunable` where they are no use."""
        trials = [self._made(setting) for setting in settings(variant, self.registry)]
        found = [trial for trial in trials if trial]
        if len(found) < len(trials):
            raise InputError(f"{variant.name} is not tuned yet on {self.data}: run the same options first.")
        if not found[0].scores:
            raise Untunable(f"{variant.name} cannot be tuned on {self.data}: {found[0].reason}.")
        search = search_of(variant, self.registry)
        return Tuned(variant, self.data, tuple(found), self._first_default(variant, found[0], search), search)

    def setup(self, setting: Variant) -> Setup:
        """What a process needs to play with a setting."""
        return setup_of(self.material, setting, self.registry, self.device)

    def _made(self, setting: Variant) -> Trial | None:
        digest = self._digest(setting)
        return self.trials.known.get(digest) or self._failed.get(digest)

    def _first_default(self, variant: Variant, default: Trial, search: Mapping[str, Any]) -> Trial:
        """The earliest trial of a default of this variant."""
        fixed = {name: value for name, value in default.parameters.items() if name not in search}
        for digest, trial in self.trials.known.items():
            same = trial.default and trial.method == variant.plugin and fixed.items() <= trial.parameters.items()
            if same and digest == self._digest(variant, trial.parameters):
                return trial
        return default

    def _digest(self, setting: Variant, parameters: Mapping[str, Any] | None = None) -> str:
        """By what a trial is known: the method's code, the setting or these parameters, and the rehearsals."""
        if setting.plugin not in self._code:
            self._code[setting.plugin] = self.registry.code_digest("method", setting.plugin)
        options = options_of(self.material, setting, self.registry)
        if options not in self._rehearsals:
            self._rehearsals[options] = games_of(replace(self.setup(setting), encoder=None)).digest
        parameters = setting.build(self.registry).parameters() if parameters is None else parameters
        parts = [setting.plugin, self._code[setting.plugin], parameters, self._rehearsals[options]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
