"""What each method costs: seconds and megabytes of one cell, each in a fresh process with one thread.

python -m xshot_bench.benchmarks.bench_methods
python -m xshot_bench.benchmarks.bench_methods flexclip kcca --shots 5 --dataset tuxpaint

Seconds are those of fit and scoring, by the clock and of the CPU; on a busy machine the latter are what counts. Extra
megabytes are by how much fit and scoring raise the process's peak. !: over the limit of 10 s (methods without
iterative training 1 s) or 2 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import click
from tabulate import tabulate

from xshot_bench.benchmarks.ablation import parse_variant
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.executors.threads import one_thread
from xshot_bench.benchmarks.plan import Inputs, features_of, open_material, setup_of
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge
from xshot_bench.benchmarks.suite import Suite
from xshot_bench.datasets.feature_cache import FeatureOptions, default_cache
from xshot_bench.methods.base import Declined, require

UNTRAINED = {
    "random", "clip", "calip", "sm", "prototype", "tip_adapter", "gda", "cca", "cca3", "kcca", "pls", "ridge", "scm",
    "jrl",
}  # fmt: skip
SECONDS, UNTRAINED_SECONDS, MEGABYTES = 10.0, 1.0, 2048.0
PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # of the unit of ru_maxrss


@click.command()
@click.argument("methods", nargs=-1)
@click.option("--dataset", default="openmoji", show_default=True)
@click.option("--encoder", default="lite0-minilm", show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--one", is_flag=True, hidden=True)
def main(methods: tuple[str, ...], dataset: str, encoder: str, shots: int, one: bool) -> None:
    """Print the table; without METHODS, of all there are."""
    if one:
        print(json.dumps(measure(methods[0], dataset, encoder, shots)))
        return
    names = methods or [entry.name for entry in Registry().of("method") if not entry.error]
    rows = []
    for name in names:
        call = [sys.executable, "-m", __spec__.name, name, "--one"]
        call += ["--dataset", dataset, "--encoder", encoder, "--shots", str(shots)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603
        failed = {"reason": f"failed: {done.stderr.strip().rpartition(chr(10))[2]}"}
        rows.append(row(name, json.loads(done.stdout) if done.returncode == 0 else failed))
    headers = ["method", "fit s", "score s", "CPU s", "extra MB", "peak MB", "over"]
    print(f"{dataset} by {encoder}, X = {shots}: one cell, one thread, a fresh process each")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def measure(name: str, dataset: str, encoder: str, shots: int) -> dict[str, Any]:
    """Fit and judge the method in this process."""
    one_thread()
    registry = Registry()
    variant = parse_variant(registry, name, {})
    method = variant.build(registry)
    asked = {"methods": [name], "datasets": [dataset], "encoder": encoder, "shots": [shots], "draws": 1}
    inputs = Inputs({}, False, default_cache(), "cpu", FeatureOptions(tokens=7))
    material = open_material(dataset, Suite.from_options(asked), registry, inputs, method.required)
    features_of(material, inputs)  # encoded, if they are not
    features, live = setup_of(material, variant, registry, "cpu").opened()
    episode = make_episode(features, material.split, Setting(shots, material.split.draws[0]), live=live)
    resident, spent, started = _peak(), time.process_time(), time.perf_counter()
    try:
        require(method, episode.task)
        method.fit(episode.task)
        fitted = time.perf_counter()
        judge(method, episode)
    except Declined as reason:
        return {"reason": f"declined: {reason}"}
    return {
        "fit": fitted - started,
        "score": time.perf_counter() - fitted,
        "cpu": time.process_time() - spent,
        "extra": _peak() - resident,
        "peak": _peak(),
    }


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A line of the table, with what is over its limit."""
    if "reason" in found:
        return [name, *5 * ["–"], found["reason"]]
    limit = UNTRAINED_SECONDS if name.partition(":")[0] in UNTRAINED else SECONDS
    over = [f"! {limit:g} s"] * (found["cpu"] > limit) + ["! 2 GB"] * (found["peak"] > MEGABYTES)
    seconds = [f"{found[key]:.2f}" for key in ("fit", "score", "cpu")]
    return [name, *seconds, f"{found['extra']:.0f}", f"{found['peak']:.0f}", " ".join(over)]


def _peak() -> float:
    """The most memory that the process has held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MEGABYTE


if __name__ == "__main__":
    main()
