"""One setting of a method on all rehearsals of a dataset: what it scores, and where that is kept.

Trials are kept in ``results/tuning.json``, so that an interrupted tuning goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from xshot_bench import InputError
from xshot_bench.benchmarks.run import Setup, one_line
from xshot_bench.benchmarks.store import write_atomically
from xshot_bench.benchmarks.tuning.rehearsals import DRAWS, FOLDS, SHOTS, Rehearsals, fit_all, mean_ap
from xshot_bench.methods.base import Declined, Method, require


class Trial(BaseModel):
    """What one setting scored.

    scores: X -> mAP of every rehearsal, of the X that the method does not decline. seconds: of computing, all
    rehearsals. default: whether the setting was the method's own when it was tried. reason: why there are no scores,
    or fewer. failed: it broke down, so it is not kept and may be tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    data: str
    parameters: dict[str, Any]
    scores: dict[str, list[float]]
    seconds: float
    default: bool
    reason: str = ""
    failed: bool = Field(False, exclude=True)

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
class Attempt:
    """A setting to be tried.

    data: what the user knows the dataset by. default: whether it is the method's own setting. digest: of all that its
    scores depend on, by which the trial is kept.
    """

    setup: Setup
    data: str
    default: bool
    digest: str

    def __len__(self) -> int:
        """How many cells it may take as long as: one for each rehearsal."""
        return FOLDS * DRAWS * len(SHOTS[self.setup.split.protocol])

    def trial(self, scores: dict[str, list[float]], seconds: float, reason: str, failed: bool) -> Trial:
        """What came of it."""
        return Trial(
            method=self.setup.variant.plugin,
            data=self.data,
            parameters=self.setup.method().parameters(),
            scores=scores,
            seconds=round(seconds, 2),
            default=self.default,
            reason=reason,
            failed=failed,
        )

    def lost(self, reason: str) -> Trial:
        """What came of it where its process ended."""
        return self.trial({}, 0.0, reason, failed=True)


def attempt(asked: Attempt) -> Trial:
    """Play all rehearsals with a setting. One at which training breaks down has failed."""
    started, scores, reason = time.process_time(), {}, ""
    try:
        games = games_of(asked.setup)
        for shots in games.shots:
            try:
                scores[str(shots)] = play(asked.setup.method(), games, shots)
            except Declined as declined:
                reason = f"declined X = {shots}: {declined}"
    except Exception as error:
        return asked.trial({}, time.process_time() - started, one_line(error), failed=True)
    return asked.trial(scores, time.process_time() - started, reason, failed=False)


def games_of(setup: Setup) -> Rehearsals:
    """The rehearsals that all settings of a method meet on a dataset."""
    features, live = setup.opened()
    return Rehearsals.of(features, setup.split, setup.options.name(setup.features), setup.device, live)


def play(method: Method, games: Rehearsals, shots: Any) -> list[float]:
    """The mAP of every game at one X; raises `Declined`."""
    played = games.at(shots)
    for task, _ in played:
        require(method, task)
    fitted = fit_all(method, [task for task, _ in played])
    return [round(mean_ap(one, *game), 5) for one, game in zip(fitted, played, strict=True)]
