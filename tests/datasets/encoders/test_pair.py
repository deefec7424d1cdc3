"""Unaligned towers against the libraries that they come from; the real ones of installed packages, and tiny ones."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_clip import PICTURES, text_tower
from torch.nn.functional import cosine_similarity, normalize

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.encode import load_features
from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM
from xshot_bench.datasets.encoders.pair import Pair
from xshot_bench.datasets.manifest import Manifest

TEXTS = ["a red square", "two dogs", "a", "word " * 300]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """A tiny timm model's file and a tiny text model's folder."""
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", pretrained=False)
    save_file(model.state_dict(), folder / "resnet.safetensors")
    return folder / "resnet.safetensors", Path(text_tower(folder / "bert"))


@pytest.fixture(scope="module")
def pair(towers):
    return Pair.open(f"timm:test_resnet@{towers[0]}+hf:{towers[1]}")


def test_image_features_are_what_the_models_classifier_would_see(pair, towers):
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model("test_resnet", pretrained=False).eval()
    model.load_state_dict(load_file(towers[0]))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        batch = torch.stack([transform(picture) for picture in PICTURES])
        expected = model.forward_head(model.forward_features(batch), pre_logits=True)
        features = pair.encode_images(torch.stack([pair.preprocess(picture) for picture in PICTURES]))
        assert torch.allclose(features.image, expected, atol=1e-5)
        assert torch.allclose(model(batch), model.get_classifier()(features.image), atol=1e-4)
    assert features.tokens is None


def test_a_file_without_classifier_or_with_another_gives_the_same(pair, towers, tmp_path):
    from safetensors.torch import load_file

    state = load_file(towers[0])
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    other = headless | {"fc.weight": state["fc.weight"][:7].clone(), "fc.bias": state["fc.bias"][:7].clone()}
    batch = torch.stack([pair.preprocess(picture) for picture in PICTURES])
    for name, weights in (("headless", headless), ("other", other)):
        save_file(weights, tmp_path / f"{name}.safetensors")
        same = Pair.open(f"timm:test_resnet@{tmp_path / name}.safetensors+hf:{towers[1]}")
        assert torch.equal(same.encode_images(batch).image, pair.encode_images(batch).image)
    del headless["conv1.0.weight"]
    save_file(headless, tmp_path / "hole.safetensors")
    with pytest.raises(InputError, match="cannot be loaded as timm's test_resnet"):
        Pair.open(f"timm:test_resnet@{tmp_path / 'hole.safetensors'}+hf:{towers[1]}").preprocess(PICTURES[0])


def test_text_features_are_the_means_over_each_texts_own_tokens(pair, towers):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(str(towers[1])) for kind in (AutoTokenizer, AutoModel))
    expected = []
    with torch.no_grad():
        for text in TEXTS:  # one by one, so that nothing is padded
            ids = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
            expected.append(model.eval()(**ids).last_hidden_state[0].mean(0))
    assert torch.allclose(pair.encode_texts(TEXTS), torch.stack(expected), atol=1e-5)
    assert pair.context == 16
    assert pair.text_lengths(TEXTS) == [5, 4, 3, 302]


def test_the_text_tower_of_a_package_is_sentence_transformers_model():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = Lite0MiniLM.open("").towers.text_folder
    tower = Pair.open(f"lite0+hf:{folder}")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = torch.from_numpy(model.encode(TEXTS[:3], normalize_embeddings=True))
    assert torch.allclose(normalize(tower.encode_texts(TEXTS[:3]), dim=1), expected, atol=1e-5)
    assert torch.allclose(Pair.open("lite0+minilm").encode_texts(TEXTS[:3]), expected, atol=1e-5)


def test_installed_packages_make_a_pair_of_unaligned_features(colour_folder, tmp_path):
    encoder = Pair.open("lite0+minilm")
    dataset = Manifest.open(DatasetOptions(root=colour_folder))
    features = load_features(dataset, encoder, tmp_path)
    assert not features.joint
    assert features.image.shape == (96, 1280)
    assert features.text.shape == (96, 384)
    assert features.class_text.shape == (8, 384)
    aligned = Lite0MiniLM.open("")
    batch = torch.stack([aligned.preprocess(dataset.picture(n)) for n in range(2)])
    pooled = aligned.towers.encode_images(batch)[0]
    assert np.allclose(features.image[:2], pooled, atol=1e-3, rtol=1e-2)


def test_half_precision_is_close(pair, towers):
    half = Pair.open(f"timm:test_resnet@{towers[0]}+hf:{towers[1]}", precision="bf16")
    assert half.fingerprint != pair.fingerprint
    batch = torch.stack([pair.preprocess(picture) for picture in PICTURES])
    assert cosine_similarity(half.encode_images(batch).image, pair.encode_images(batch).image).min() > 0.99
    assert cosine_similarity(half.encode_texts(TEXTS), pair.encode_texts(TEXTS)).min() > 0.99
    with pytest.raises(InputError, match="compute in fp32, not bf16"):
        Pair.open("lite0+minilm", precision="bf16")


def test_the_fingerprint_follows_both_towers(pair, towers, tmp_path):
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(towers[0].read_bytes()[:-4] + b"\0\0\0\1")
    other = text_tower(tmp_path / "bert")
    (Path(other) / "vocab.txt").write_text("another")
    found = {
        pair.fingerprint,
        Pair.open(f"timm:test_resnet@{changed}+hf:{towers[1]}").fingerprint,
        Pair.open(f"timm:test_resnet@{towers[0]}+hf:{other}").fingerprint,
        Pair.open("lite0+minilm").fingerprint,
    }
    assert len(found) == 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "needs an image and a text tower, not ''"),
        ("lite0", "Expected: pair:timm:MODEL@FILE.safetensors"),
        ("timm:resnet5+minilm", "timm knows no model 'resnet5'. Did you mean 'resnet50'"),
        ("timm:test_resnet@nowhere.safetensors+minilm", "there is no file nowhere.safetensors"),
        ("timm:resnet50+minilm", "neither cached nor to be had from the network. Give a local file: timm:resnet50@"),
        ("lite0+hf:nobody/nothing", "the text model 'nobody/nothing' is no folder, and neither cached"),
    ],
)
def test_what_cannot_be_had_is_said(argument, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message):
        Pair.open(argument)


def test_files_that_are_something_else_are_said_to_be(towers, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="cannot be loaded as timm's test_resnet"):
        Pair.open(f"timm:test_resnet@{tmp_path / 'other.safetensors'}+minilm").preprocess(PICTURES[0])
    with pytest.raises(InputError, match="cannot be loaded as a text model of transformers"):
        Pair.open(f"lite0+hf:{tmp_path}").encode_texts(["a"])


def test_a_pair_has_no_tokens(pair):
    assert pair.grid == 0
    with pytest.raises(InputError, match="no joint space"):
        pair.encode_images(torch.zeros(1, 3, 160, 160, dtype=torch.uint8), tokens=7)
