"""One cell -> one result. A failing method ends its own cell only."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from xshot_bench import printable
from xshot_bench.benchmarks import metrics
from xshot_bench.benchmarks.ablation import Variant
from xshot_bench.benchmarks.episode import Episode, Live, make_episode
from xshot_bench.benchmarks.evidence import Evidence
from xshot_bench.benchmarks.live import LiveEncoder, encoded
from xshot_bench.benchmarks.protocol import DIRECTIONS, RECALL_AT
from xshot_bench.benchmarks.provenance import provenance
from xshot_bench.benchmarks.records import Cell, Record, Result, to_parquet
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.scoring import accuracy, score_blocks
from xshot_bench.datasets.feature_cache import FeatureOptions, FeatureSet, open_features
from xshot_bench.datasets.splitting import Split
from xshot_bench.methods.base import Declined, Method, require


@dataclass(frozen=True)
class Setup:
    """A method on a dataset, with all that a process needs to run it.

    encoder: for a method that learns inside of its towers.
    """

    variant: Variant
    features: Path
    options: FeatureOptions
    split: Split
    plugins: tuple[Path, ...] = ()
    device: str = "cpu"
    encoder: LiveEncoder | None = None

    def method(self) -> Method:
        """The method, not fitted yet."""
        return self.variant.build(_registry(self.plugins))

    def opened(self) -> tuple[FeatureSet, Live | None]:
        """The features, and what an episode has of the encoder; opened once a process."""
        live = self.encoder.load(self.plugins, self.device) if self.encoder else None
        return _features(self.features, self.options), live


@dataclass(frozen=True)
class Job:
    """Cells of one method that differ in the draw only."""

    setup: Setup
    cells: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.cells)


def run_job(job: Job) -> list[Result]:
    """The results of the job's cells, in their order. Several draws are trained at once by ``fit_many``."""
    if len(job) > 1:
        try:
            return _run_together(job)
        except (Exception, SystemExit):  # whose fault it was shows when they run one by one
            return [_run_one(job, cell) for cell in job.cells]
    return [_run_one(job, cell) for cell in job.cells]


def lost(job: Job, reason: str) -> Iterator[Result]:
    """The results of a job that was not finished, for that reason."""
    for cell in job.cells:
        yield _unfinished(job, cell, "failed", reason, "")


def judge(method: Method, episode: Episode) -> tuple[dict[str, float], pd.DataFrame, dict[str, list[float]]]:
    """Metrics of a fitted method, its AP and first items of every query, and its precision by recall (see records)."""
    answers = episode.answers
    task, (queries, gallery) = encoded(method, episode.task, episode.queries, episode.gallery)
    classes = [task.classes[label] for label in answers.key["i2t"].query_label]
    ap = pd.DataFrame({"query": answers.query_ids, "class": classes})
    numbers: dict[str, float] = {}
    precision: dict[str, list[float]] = {}
    for direction in DIRECTIONS:
        evidence = Evidence(answers.key[direction])
        for block in score_blocks(method, task, queries, gallery, direction):
            evidence.add(block)
            del block  # or there are two of them while the next one is made
        ap[direction] = _counted(evidence.ap, answers.key[direction].unit, len(ap))
        ap[f"{direction}_first"], ap[f"{direction}_right"] = evidence.first()
        precision[direction] = evidence.precision()
        numbers[f"{direction}/mAP"] = float(ap[direction].mean())
        numbers[f"{direction}/mAP_50"] = float(np.nanmean(evidence.short))
        rank = evidence.rank
        if (rank > 0).any():
            numbers |= {f"{direction}/R_{k}": float((rank[rank > 0] <= k).mean()) for k in RECALL_AT}
    numbers["mAP"] = (numbers["i2t/mAP"] + numbers["t2i/mAP"]) / 2
    top_1 = accuracy(method, task, queries, answers.key["i2t"].query_label)
    return numbers | ({} if np.isnan(top_1) else {"accuracy": top_1}), ap, precision


def _counted(values: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """The mean of the ``values [Q]`` that are counted under each of the units; NaN for one without any."""
    known = ~np.isnan(values)
    total = np.bincount(unit[known], values[known], units)
    count = np.bincount(unit[known], minlength=units)
    return np.divide(total, count, out=np.full(units, np.nan), where=count > 0)


def _run_one(job: Job, cell: Cell) -> Result:
    try:
        method = job.setup.method()
        clock = _Clock()
        episode = _episode(job, cell)
        clock.lap("episode")
        require(method, episode.task)
        method.fit(episode.task)
        clock.lap("fit")
        return _judged(job, cell, method, episode, clock)
    except Declined as reason:
        return _unfinished(job, cell, "declined", str(reason), "")
    except (Exception, SystemExit) as error:
        return _unfinished(job, cell, "failed", one_line(error), traceback.format_exc())


def _run_together(job: Job) -> list[Result]:
    method = job.setup.method()
    episodes = [_episode(job, cell) for cell in job.cells]
    for episode in episodes:
        require(method, episode.task)
    clock = _Clock()
    fitted = method.fit_many([episode.task for episode in episodes])
    clock.lap("fit", share=len(job))
    return [
        _judged(job, cell, one, episode, clock.copy())
        for cell, one, episode in zip(job.cells, fitted, episodes, strict=True)
    ]


def _episode(job: Job, cell: Cell) -> Episode:
    features, live = job.setup.opened()
    return make_episode(features, job.setup.split, cell.setting, job.setup.device, live)


def _judged(job: Job, cell: Cell, method: Method, episode: Episode, clock: _Clock) -> Result:
    numbers, ap, precision = judge(method, episode)
    clock.lap("score")
    key = episode.answers.key
    record = Record(
        cell=cell,
        status="done",
        metrics=numbers,
        floor={d: metrics.expected_random_map(key[d].query_label, key[d].gallery_label) for d in DIRECTIONS},
        precision=precision,
        counts={
            "queries": len(ap),
            "gallery": len(key["i2t"].gallery_label),
            "left_out": int(ap["i2t"].isna().sum()),
        },
        seconds=clock.seconds,
        diagnostics=method.diagnostics(),
        provenance=provenance(job.setup.device),
    )
    return Result(record, to_parquet(ap))


def _unfinished(job: Job, cell: Cell, status: str, reason: str, trace: str) -> Result:
    record = Record.model_validate(
        {"cell": cell, "status": status, "reason": printable(reason), "provenance": provenance(job.setup.device)}
    )
    return Result(record, traceback=trace)


class _Clock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str, share: int = 1) -> None:
        now = time.perf_counter()
        self.seconds[phase] = (now - self._last) / share
        self._last = now

    def copy(self) -> _Clock:
        clock = _Clock()
        clock.seconds = dict(self.seconds)
        return clock


@lru_cache(maxsize=8)
def _features(folder: Path, options: FeatureOptions) -> FeatureSet:
    return open_features(folder, options)


@lru_cache(maxsize=8)
def _registry(plugins: tuple[Path, ...]) -> Registry:
    return Registry(plugins)


def one_line(error: BaseException) -> str:
    """What an error is, for a reason."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
