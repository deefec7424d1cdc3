"""What the command line says of encoding: precision, batch size, views, the grid of tokens, prompt ensembles."""

import json
from pathlib import Path

import pytest

from xshot_bench.datasets.feature_cache import FeatureOptions, open_features

PLUGINS = {
    "fields": '''
import numpy as np, torch
from xshot_bench.datasets.encoders.base import Encoder, ImageFeatures, InputError, to_grid

class Fields(Encoder):
    """Colours of a 4 x 4 grid; text is nothing to it."""
    fingerprint, grid, side, logit_scale = "fields", 4, 4, 1.0

    @classmethod
    def open(cls, argument, device="cpu", precision="fp32"):
        if precision != "fp32":
            raise InputError(f"asked for {precision}")
        return cls()

    def preprocess(self, picture):
        return torch.from_numpy(np.array(picture.convert("RGB").resize((4, 4)))).permute(2, 0, 1)

    def encode_images(self, batch, tokens=0):
        fields = batch.float().permute(0, 2, 3, 1) / 255 + 0.1
        return ImageFeatures(fields.mean((1, 2)), to_grid(fields, tokens) if tokens else None)

    def encode_texts(self, texts):
        return torch.tensor([[len(text), text.count("e"), 1.0] for text in texts])
''',
    "nearest_field": '''
from xshot_bench.methods.base import PairMethod

class NearestField(PairMethod):
    """The best of an image's fields."""
    needs = frozenset({"joint", "tokens"})

    def fit(self, task):
        pass

    def score(self, image, text, tokens):
        assert tokens.shape[1] == 9
        return (tokens @ text.T).amax(1)
''',
}


@pytest.fixture
def call(bench, colour_folder, tmp_path):
    plugins = []
    for name, code in PLUGINS.items():
        (tmp_path / f"{name}.py").write_text(code)
        plugins += ["--plugin", str(tmp_path / f"{name}.py")]
    data = ["--datasets", "manifest", "--root", str(colour_folder), "--shots", "1", "--draws", "1", "--format", "json"]

    def run(*arguments: str, encoder: str = "fields"):
        return bench(*data, *plugins, "--encoder", encoder, *arguments, data=False)

    return run


def features(tmp_path: Path) -> set[str]:
    return {json.loads(path.read_text())["cell"]["features"] for path in (tmp_path / "results").rglob("*.json")
            if "cell" in json.loads(path.read_text())}  # fmt: skip


def test_tokens_go_to_the_method_that_needs_them_and_change_nothing_for_others(call, tmp_path):
    assert call("--methods", "clip").code == 0
    (plain,) = features(tmp_path)
    done = call("--methods", "clip,nearest_field", "--token-grid", "3")
    assert done.code == 0, done.err
    assert features(tmp_path) == {plain, f"{plain}.tokens3"}
    assert open_features(tmp_path / "cache" / "features" / plain, FeatureOptions(tokens=3)).tokens.shape == (96, 9, 3)


def test_views_prompts_and_batches(call, tmp_path):
    done = call("--methods", "clip", "--views", "3", "--ensemble", "raw", "--batch-size", "7")
    assert done.code == 0, done.err
    (name,) = features(tmp_path)
    assert name.endswith(".views3-seed0")
    folder = tmp_path / "cache" / "features" / name.partition(".")[0]
    found = open_features(folder, FeatureOptions(views=3))
    assert found.views.shape == (96, 3, 3)
    assert found.ensemble == "raw"


@pytest.mark.parametrize(
    ("arguments", "encoder", "message"),
    [
        ([], "fields/fp8", "there is no precision 'fp8'. There are: fp32, fp16, bf16"),
        ([], "fields/bf16", "asked for bf16"),
        (["--batch-size", "0"], "fields", "--batch-size"),
        (["--views", "0"], "fields", "--views"),
    ],
)
def test_what_cannot_be_asked_for_is_said(call, arguments, encoder, message):
    done = call("--methods", "clip", *arguments, encoder=encoder)
    assert done.code == 2
    assert message in done.err
