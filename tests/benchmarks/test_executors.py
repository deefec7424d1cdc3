"""Cells come out the same wherever they run, each once; what is not a cell's fault is not held against it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from xshot_bench.benchmarks.executors import Placement, execute
from xshot_bench.benchmarks.plan import Inputs, Plan, encode_missing, make_plan
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import Job
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.datasets.feature_cache import FeatureOptions

ROOT = Path(__file__).resolve().parents[2]
METHOD = '''
import os, signal, time
from pathlib import Path

from xshot_bench.methods.base import EmbeddingMethod

HERE = Path(__file__).parent


class {name}(EmbeddingMethod):
    """Zero-shot cosine."""

    def embed(self, x, modality):
        return x

    {body}
'''
ONCE = """def fit(self, task):
        if not (HERE / "killed").exists():
            (HERE / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
TOGETHER = """def fit(self, task):
        if task.seed == 1:
            os._exit(3)

    def fit_many(self, tasks):
        os._exit(3)
"""
MAPPED = """def fit(self, task):
        time.sleep(1)
        self.found = dict.fromkeys(("Rss", "Pss", "Private_Dirty"), 0.0)
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                inside = line.endswith(".npy")
            elif inside and line.partition(":")[0] in self.found:
                self.found[line.partition(":")[0]] += float(line.split()[1])

    def diagnostics(self):
        return self.found
"""


@pytest.fixture
def planned(colour_folder: Path, tmp_path: Path) -> Callable[..., Plan]:
    """Plans a suite over the colours, with methods written for the test: name -> body."""

    def plan(methods: Sequence[str], draws: int, **bodies: str) -> Plan:
        plugins = [ROOT / "tests/plugins/colours.py"]
        for name, body in bodies.items():
            plugins.append(tmp_path / f"{name}.py")
            plugins[-1].write_text(METHOD.format(name=name.title(), body=body))
        asked = {"methods": methods, "datasets": ("manifest",), "encoder": "colours", "shots": (1, 2), "draws": draws}
        inputs = Inputs({"": colour_folder}, False, tmp_path / "cache", "cpu", FeatureOptions())
        found = make_plan(Suite.from_options(asked), Registry(plugins), Store(tmp_path / "results"), inputs)
        encode_missing(found, inputs, lambda *_: None)
        return found

    return plan


def numbers(jobs: Sequence[Job], workers: int) -> dict[str, tuple[dict[str, float], str]]:
    """Of each cell by its digest: metrics, and what its AP per query comes to."""
    found = {}
    for result in execute(jobs, Placement(workers)):
        digest = result.record.cell.digest
        assert digest not in found and result.record.status == "done", result.record.reason
        found[digest] = result.record.metrics, hashlib.sha256(result.ap).hexdigest()
    return found


def test_numbers_do_not_depend_on_how_many_run_at_once(planned):
    jobs = planned(("clip", "prototype", "ridge", "linear_probe"), 3).jobs
    alone = numbers(jobs, 1)
    assert len(alone) == len(jobs) == 24
    assert numbers(jobs, 2) == alone
    assert numbers(list(reversed(jobs)), 3) == alone


def test_processes_share_the_pages_of_the_features(planned):
    results = list(execute(planned(("mapped",), 3, mapped=MAPPED).jobs, Placement(2)))
    assert len(results) == 6
    found = [result.record.diagnostics for result in results]
    assert all(one["Rss"] > 0 and one["Private_Dirty"] == 0 for one in found)
    assert any(one["Pss"] <= one["Rss"] / 2 for one in found)  # mapped by both at that moment


def test_a_process_that_is_killed_from_outside_has_its_cell_run_again(planned):
    jobs = planned(("once", "clip"), 2, once=ONCE).jobs
    results = list(execute(jobs, Placement(2)))
    assert sorted(result.record.cell.digest for result in results) == sorted(job.cells[0].digest for job in jobs)
    assert {result.record.status for result in results} == {"done"}


def test_of_cells_that_are_trained_together_only_the_guilty_fails(planned):
    first, second = planned(("together",), 2, together=TOGETHER).jobs[:2]
    both = replace(first, cells=first.cells + second.cells)
    results = list(execute([both, both], Placement(2)))  # a single job would run in this process
    found = sorted((result.record.cell.draw, result.record.status) for result in results)
    assert found == [(0, "done"), (0, "done"), (1, "failed"), (1, "failed")]
