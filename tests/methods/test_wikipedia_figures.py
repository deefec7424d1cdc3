"""Known numbers on the Wikipedia set's own features: mAP@all of I→T and T→I over all ten classes.

They are from earlier runs with other code, which reproduced CCA's published figures (Rasiwasia et al., ACM MM 2010).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from xshot_bench.benchmarks.episode import Episode, make_episode
from xshot_bench.benchmarks.metrics import average_precision
from xshot_bench.benchmarks.protocol import DIRECTIONS, Setting
from xshot_bench.benchmarks.scoring import score_blocks
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.wikipedia import Wikipedia
from xshot_bench.methods.base import MODALITIES
from xshot_bench.methods.cca import Cca
from xshot_bench.methods.cca3 import Cca3
from xshot_bench.methods.jrl import Jrl
from xshot_bench.methods.kcca import Kcca
from xshot_bench.methods.pls import Pls
from xshot_bench.methods.ridge import Ridge
from xshot_bench.methods.scm import Scm
from xshot_bench.methods.sm import SemanticMatching

ROOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "wikipedia"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="needs ../shared/data/wikipedia")

CM = {"dimensions": 7, "power": 0.0, "standardise": False}
SM = {"classes_from": "labels"}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The episode with all training items."""
    dataset = Wikipedia.open(DatasetOptions(root=ROOT))
    features = load_features(dataset, None, tmp_path_factory.mktemp("cache"))
    return make_episode(features, dataset.split("kshot"), Setting("all", 1))


def drawn(everything: Episode, shots: int, seed: int) -> Episode:
    """The episode with some items of each class, drawn as in those runs."""
    rng, task = np.random.default_rng(seed), everything.task
    members = [torch.nonzero(task.support.label == c).flatten().numpy() for c in task.target_classes]
    chosen = torch.from_numpy(np.concatenate([rng.choice(those, shots, replace=False) for those in members]))
    return replace(everything, task=replace(task, support=task.support.rows(chosen), shots=shots))


def mean_ap(episode: Episode, blocks) -> list[float]:
    keys = episode.answers.key
    return [
        float(average_precision(block, keys[way].query_label, keys[way].gallery_label).mean())
        for way, block in zip(DIRECTIONS, blocks, strict=True)
    ]


def judged(method, episode: Episode) -> list[float]:
    """By the harness's own rule."""
    method.fit(episode.task)
    parts = [score_blocks(method, episode.task, episode.queries, episode.gallery, way) for way in DIRECTIONS]
    return mean_ap(episode, [np.concatenate(list(blocks)) for blocks in parts])


def by_posteriors(method, episode: Episode, compare: str) -> list[float]:
    """By the softmax of the method's own logits, compared by dot product or by cosine after 1/C is taken away."""
    method.fit(episode.task)
    image, text = (torch.softmax(method.logits(episode.queries[m][:], m).double(), dim=1) for m in MODALITIES)
    if compare == "centred":
        image, text = (normalize(p - 0.1, dim=1) for p in (image, text))
    return mean_ap(episode, [(image @ text.T).numpy(), (text @ image.T).numpy()])


@pytest.mark.parametrize(
    ("method", "known"),
    [
        pytest.param(Cca(**CM, regularisation=0.01), (0.250, 0.202), id="cca"),
        pytest.param(Cca(**CM | {"power": 1.0}, regularisation=0.01), (0.261, 0.214), id="cca-weighted"),
        pytest.param(Cca(**CM | {"power": 1.0}, regularisation=0.1), (0.268, 0.218), id="cca-weighted-regularised"),
        pytest.param(Pls(dimensions=7, power=0.0), (0.247, 0.198), id="pls"),
        pytest.param(Ridge(strength=1000.0), (0.273, 0.224), id="ridge"),
        pytest.param(Cca3(dimensions=20, regularisation=0.01, standardise=False), (0.280, 0.222), id="cca3"),
        pytest.param(Jrl(agreement=1.0, smoothness=1.0, sparsity=100.0), (0.275, 0.227), id="jrl"),
        pytest.param(Jrl(agreement=1.0, smoothness=1000.0, sparsity=1000.0), (0.231, 0.186), id="jrl-paper"),
        pytest.param(
            Kcca(kernel="chi2", kappa=1.0, dimensions=7, power=0.0), (0.264, 0.218), id="kcca", marks=pytest.mark.slow
        ),
    ],
)
def test_embeddings(everything, method, known):
    assert judged(method, everything) == pytest.approx(known, abs=0.005)


@pytest.mark.parametrize(
    ("method", "compare", "known"),
    [
        (SemanticMatching(**SM, strength=0.01), "dot", (0.315, 0.237)),
        (SemanticMatching(**SM, strength=0.01), "centred", (0.300, 0.230)),
        (SemanticMatching(**SM, strength=1.0), "dot", (0.306, 0.214)),
        (Scm(dimensions=7, regularisation=0.01, strength=1.0), "centred", (0.301, 0.229)),
    ],
)
def test_posteriors(everything, method, compare, known):
    assert by_posteriors(method, everything, compare) == pytest.approx(known, abs=0.005)


def test_the_harness_rule_is_near_the_plain_posteriors(everything):
    """Calibrated posteriors give semantic matching .321/.237, plain ones .315/.237."""
    found = judged(SemanticMatching(**SM, strength=0.01), everything)
    assert found == pytest.approx((0.315, 0.237), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shots", "matching", "correlation", "ridge"),
    [
        (1, (0.181, 0.132), (0.175, 0.131), (0.178, 0.131)),
        (4, (0.220, 0.155), (0.197, 0.147), None),
        (16, (0.244, 0.169), (0.216, 0.165), (0.222, 0.167)),
        (64, (0.266, 0.184), (0.244, 0.193), (0.238, 0.183)),
    ],
)
def test_few_shots(everything, shots, matching, correlation, ridge):
    """The mean of ten draws; at one shot its standard error is .004, so the draws must be the same."""
    episodes = [drawn(everything, shots, seed) for seed in range(10)]
    found = [by_posteriors(SemanticMatching(**SM, strength=0.1), episode, "dot") for episode in episodes]
    assert np.mean(found, axis=0) == pytest.approx(matching, abs=0.01)
    found = [judged(Cca(**CM, regularisation=1.0), episode) for episode in episodes]
    assert np.mean(found, axis=0) == pytest.approx(correlation, abs=0.01)
    if ridge:
        found = [judged(Ridge(strength=100.0), episode) for episode in episodes]
        assert np.mean(found, axis=0) == pytest.approx(ridge, abs=0.01)
