"""Every method computes where its task is, and nowhere else.

Seen on a device that is not there (far_device.py), and on a GPU where there is one.
"""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from cases import compared, fitted, outputs, world_of
from far_device import FAR, Far, far_away, moved
from live_world import towers_on
from worlds import make_features, make_split

from xshot_bench.benchmarks.ablation import parse_variant
from xshot_bench.benchmarks.episode import make_episode
from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.run import judge

REGISTRY = Registry()
METHODS = [entry.name for entry in REGISTRY.of("method")]
LONG = ("steps", "classifier_steps", "rounds", "epochs")  # of training: two will do
DEVICES = [FAR, torch.device("cuda")] if torch.cuda.is_available() else [FAR]
LIVE = ("coop", "coop:csc", "coop:words", "clip_lora", "clip_lora:both", "clip_lora:posterior")


def test_the_device_notices_what_a_gpu_would():
    with far_away():
        x = torch.arange(6.0).view(2, 3).to(FAR)
        assert isinstance(x, Far) and x.device == FAR
        assert (2 * x + torch.tensor(1.0)).cpu().tolist() == [[1, 3, 5], [7, 9, 11]]
        assert x[torch.tensor([1])].cpu().tolist() == [[3, 4, 5]]
        with pytest.raises(RuntimeError, match="are on the CPU"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="cannot draw numbers elsewhere"):
            torch.randn(3, generator=torch.Generator(), device=FAR)
        with pytest.raises((RuntimeError, TypeError)):
            x.numpy()


def seen(device, method, items, task=None):
    """A GPU rounds in its own way, so there it is what rounding does not turn round, as it does an eigenvector."""
    return outputs(method, items, task) if device == FAR else [compared(method, items, task)]


def check_there(device, found, expected):
    """What was computed there lies there, and is what was computed here."""
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == device.type
        torch.testing.assert_close(a.cpu(), b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", [name for name in METHODS if "towers" not in REGISTRY.load("method", name).needs])
def test_a_method_keeps_to_its_device(name, device):
    """And gives there what it gives here, one draw or several at once."""
    cls = REGISTRY.load("method", name)
    make = partial(cls, **{part: 2 for part in LONG if part in cls().parameters()})
    world = world_of(make)
    tasks = [world.task(shots=2, seed=seed) for seed in (0, 1)]
    items = world.test_items(tasks[0])
    near = fitted(make, tasks[0])
    assert near is not None
    expected = seen(device, near, items)
    with far_away(device):
        far = fitted(make, moved(tasks[0], device))
        several = make().fit_many([moved(task, device) for task in tasks])[0]
        found = [seen(device, method, moved(items, device)) for method in (far, several)]
    for out in found:
        check_there(device, out, expected)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", LIVE)
def test_a_method_keeps_to_the_device_of_the_encoder_s_towers(name, device):
    variant = parse_variant(REGISTRY, name, {name.partition(":")[0]: {"steps": "2"}})
    make = partial(variant.build, REGISTRY)
    world = world_of(make)
    task = world.task(shots=2)
    items = world.test_items(task)
    near = fitted(make, task)
    assert near is not None
    expected = seen(device, near, items, task)
    with far_away(device):
        there = dataclasses.replace(moved(task, device), towers=towers_on(device, world.names))
        found = seen(device, fitted(make, there), moved(items, device), there)
    check_there(device, found, expected)


def test_every_method_is_seen_there():
    named = {name.partition(":")[0] for name in LIVE}
    assert named == {name for name in METHODS if "towers" in REGISTRY.load("method", name).needs}


@pytest.mark.parametrize("name", ["clip", "prototype", "sm", "calip", "random"])
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("there", DEVICES, ids=str)
def test_a_cell_is_judged_from_any_device(name, shots, there):
    """Episode, scoring and calibration of each scoring rule."""
    if name == "random" and there != FAR:
        pytest.skip("its hashes are of the last bits, too, and a GPU's are its own")
    features = make_features(noise=1.0)
    tokens = np.random.default_rng(0).standard_normal((len(features.label), 3, 16)).astype(np.float16)
    features = dataclasses.replace(features, tokens=tokens)
    numbers = []
    for device in (torch.device("cpu"), there):
        with far_away(there):
            episode = make_episode(features, make_split(features), Setting(shots, 1), str(device))
            method = REGISTRY.load("method", name)()
            method.fit(episode.task)
            numbers.append(judge(method, episode)[0])
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)
