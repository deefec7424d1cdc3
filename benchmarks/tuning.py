"""The one policy by which parameters are chosen: so many settings of each method, all on the same rehearsals.

A trial is one setting on all rehearsals. Trials are kept in ``results/tuning.json``, so that an interrupted tuning goes
on, and are named by what they depend on: the method's code, the setting, and the rehearsals.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from xshot_bench import InputError
from xshot_bench.benchmarks.ablation import Variant
from xshot_bench.benchmarks.plan import Material, live_of, options_of
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.rehearsals import Rehearsals, fit_all, mean_ap
from xshot_bench.benchmarks.store import write_atomically
from xshot_bench.datasets.feature_cache import FeatureOptions, open_features
from xshot_bench.methods.base import Declined, Method, require

TRIALS = 12  # settings of each method, the default among them
SEED = 0  # of the draw of the others

Progress = Callable[[str, int, int], None]  # told what is tuned, how many trials are done, and of how many


class Untunable(InputError):
    """A method declines every rehearsal of a dataset, or breaks down at its default."""


class Trial(BaseModel):
    """What one setting scored.

    scores: X -> mAP of every rehearsal, of the X that the method does not decline. seconds: of computing, all
    rehearsals. default: whether the setting was the method's own when it was tried. reason: why there are no scores,
    or fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    data: str
    parameters: dict[str, Any]
    scores: dict[str, list[float]]
    seconds: float
    default: bool
    reason: str = ""

    @property
    def means(self) -> dict[str, float]:
        """The mean mAP at each X."""
        return {x: sum(values) / len(values) for x, values in self.scores.items()}


class Trials:
    """The trials in a results folder. Adding is done inside ``Store.writing()``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tuning.json"

    @cached_property
    def known(self) -> dict[str, Trial]:
        """Every trial by its digest, in the order in which they were made."""
        try:
            return TypeAdapter(dict[str, Trial]).validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not what a tuning writes"
            raise InputError(f"{self.path} cannot be read ({reason}). Delete it to tune again from nothing.") from None

    def add(self, digest: str, trial: Trial) -> None:
        self.known[digest] = trial
        lines = (f"{json.dumps(key)}: {one.model_dump_json()}" for key, one in self.known.items())
        try:
            write_atomically(self.path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}). Give another --results.") from None


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
    _opened: dict[tuple[FeatureOptions, bool], Rehearsals] = field(default_factory=dict)
    _code: dict[str, str] = field(default_factory=dict)  # method -> digest

    def tune(self, variant: Variant, progress: Progress | None = None, compute: bool = True) -> Tuned:
        """Run the trials that are not known, `InputError` where it may not ``compute`` them. Raises `Untunable`."""
        asked = settings(variant, self.registry)
        found: list[Trial] = []
        for setting in asked:
            trial = self.known(setting)
            if trial is None and not compute:
                raise InputError(f"{variant.name} is not tuned yet on {self.data}: run the same options first.")
            found.append(trial or self._try(setting, setting is asked[0]))
            if progress:
                progress(f"tuning {variant.name} on {self.data}", len(found), len(asked))
        if not found[0].scores:
            raise Untunable(f"{variant.name} cannot be tuned on {self.data}: {found[0].reason}.")
        search = search_of(variant, self.registry)
        return Tuned(variant, self.data, tuple(found), self._first_default(variant, found[0], search), search)

    def known(self, setting: Variant) -> Trial | None:
        """The trial of a setting, where there is one."""
        return self.trials.known.get(self._digest(setting, setting.build(self.registry).parameters()))

    def _first_default(self, variant: Variant, default: Trial, search: Mapping[str, Any]) -> Trial:
        """The earliest trial of a default of this variant."""
        fixed = {name: value for name, value in default.parameters.items() if name not in search}
        for digest, trial in self.trials.known.items():
            same = trial.default and trial.method == variant.plugin and fixed.items() <= trial.parameters.items()
            if same and digest == self._digest(variant, trial.parameters):
                return trial
        return default

    def _try(self, setting: Variant, default: bool) -> Trial:
        games, method = self.games(setting), setting.build(self.registry)
        started, scores, reason, failed = time.process_time(), {}, "", False
        for shots in games.shots:
            try:
                scores[str(shots)] = play(method, games, shots)
            except Declined as declined:
                reason = f"declined X = {shots}: {declined}"
            except Exception as error:  # a setting at which training breaks down is not chosen
                scores, failed, reason = {}, True, f"{type(error).__name__}: {error}"
                break
        trial = Trial(
            method=setting.plugin,
            data=self.data,
            parameters=method.parameters(),
            scores=scores,
            seconds=round(time.process_time() - started, 2),
            default=default,
            reason=reason,
        )
        if not failed:
            self.trials.add(self._digest(setting, trial.parameters), trial)
        return trial

    def games(self, setting: Variant) -> Rehearsals:
        """What all settings of a method meet."""
        options, live = (
            options_of(self.material, setting, self.registry),
            live_of(self.material, setting, self.registry),
        )
        key = options, live is not None
        if key not in self._opened:
            features, name = open_features(self.material.features, options), options.name(self.material.features)
            towers = live.load(self.registry.plugins, self.device) if live else None
            self._opened[key] = Rehearsals.of(features, self.material.split, name, self.device, towers)
        return self._opened[key]

    def _digest(self, setting: Variant, parameters: Mapping[str, Any]) -> str:
        if setting.plugin not in self._code:
            self._code[setting.plugin] = self.registry.code_digest("method", setting.plugin, defaults=False)
        parts = [setting.plugin, self._code[setting.plugin], parameters, self.games(setting).digest]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def play(method: Method, games: Rehearsals, shots: Any) -> list[float]:
    """The mAP of every game at one X; raises `Declined`."""
    played = games.at(shots)
    for task, _ in played:
        require(method, task)
    fitted = fit_all(method, [task for task, _ in played])
    return [round(mean_ap(one, *game), 5) for one, game in zip(fitted, played, strict=True)]
