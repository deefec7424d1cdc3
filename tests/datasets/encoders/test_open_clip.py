"""The whole path with real files: tiny models are saved, loaded by the encoder, and compared with calls by hand."""

import json
import time

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from xshot_bench import InputError
from xshot_bench.datasets.encoders.open_clip import OpenClip

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
CONFIGS = {
    "tiny-vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "tiny-rn": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
}
PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for n in range(3)]
TEXTS = ["a red square", "two dogs", "word " * 50_000]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights files by model name; the models are made known to open_clip."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": config, "text_cfg": TEXT}))
    open_clip.add_model_config(folder)
    for name in CONFIGS:
        torch.manual_seed(7)
        state = open_clip.create_model(name).state_dict()
        found[name] = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, found[name])
        torch.save(state, folder / f"{name}.pt")
    return found


def by_hand(name, file):
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(file))
    return model.eval(), torch.stack([preprocess(picture) for picture in PICTURES])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_features_are_those_of_the_model_called_by_hand(files, name, suffix):
    file = files[name].with_suffix(suffix)
    encoder = OpenClip.open(f"{name}@{file}")
    model, batch = by_hand(name, file)
    assert torch.equal(torch.stack([encoder.preprocess(picture) for picture in PICTURES]), batch)
    with torch.no_grad():
        assert torch.allclose(encoder.encode_images(batch).image, model.encode_image(batch), atol=1e-6)
        tokens = open_clip.get_tokenizer(name)(TEXTS)
        assert torch.allclose(encoder.encode_texts(TEXTS), model.encode_text(tokens), atol=1e-6)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_vit_tokens_are_the_patches_after_norm_and_projection(files):
    encoder = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    model, batch = by_hand("tiny-vit", files["tiny-vit"])
    model.visual.output_tokens = True
    with torch.no_grad():
        pooled, patches = model.visual(batch)
        features = encoder.encode_images(batch, tokens=True)
        assert features.tokens.shape == (3, 16, 24)
        assert torch.allclose(features.tokens, patches @ model.visual.proj, atol=1e-6)
        assert torch.allclose(features.image, pooled, atol=1e-6)


def test_resnet_tokens_are_what_attention_pooling_says_of_every_position(files):
    encoder = OpenClip.open(f"tiny-rn@{files['tiny-rn']}")
    model, batch = by_hand("tiny-rn", files["tiny-rn"])
    features = encoder.encode_images(batch, tokens=True)
    seen = {}
    model.visual.attnpool.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        assert torch.allclose(features.image, model.encode_image(batch), atol=1e-5)
        pool = model.visual.attnpool
        x = seen["x"].flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        every = torch.nn.MultiheadAttention(x.shape[-1], pool.num_heads)  # torch's own, given the pool's weights
        every.in_proj_weight.copy_(torch.cat([pool.q_proj.weight, pool.k_proj.weight, pool.v_proj.weight]))
        every.in_proj_bias.copy_(torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]))
        every.out_proj.weight.copy_(torch.eye(x.shape[-1]))
        every.out_proj.bias.zero_()
        expected = pool.c_proj(every(x, x, x)[0])[1:].transpose(0, 1)
    assert features.tokens.shape == (3, 4, 24)
    assert torch.allclose(features.tokens, expected, atol=1e-5)


def test_the_fingerprint_follows_the_weights(files, tmp_path):
    one = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(files["tiny-vit"].read_bytes()[:-4] + b"\0\0\0\1")
    assert one.fingerprint == OpenClip.open(f"tiny-vit@{files['tiny-vit']}").fingerprint
    assert one.fingerprint != OpenClip.open(f"tiny-vit@{changed}").fingerprint


def test_without_network_and_weights_one_clear_error_comes_soon(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(InputError, match=r"Give a local file instead: open_clip:ViT-B-32@/path/to"):
        OpenClip.open("ViT-B-32@laion2b_s34b_b79k")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "needs a model and its weights"),
        ("ViT-B-32", "needs a model and its weights"),
        ("ViT-B32@openai", "Did you mean 'ViT-B-32'"),
        ("ViT-B-32@laion2b", "Did you mean 'laion2b"),
        ("ViT-B-32@nowhere/file.pt", "there is no weights file"),
    ],
)
def test_what_cannot_be_had_is_said(argument, message):
    with pytest.raises(InputError, match=message):
        OpenClip.open(argument)


def test_a_pickle_is_not_loaded(tmp_path, files):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    encoder = OpenClip.open(f"tiny-vit@{tmp_path / 'trap.pt'}")
    with pytest.raises(InputError, match="cannot be loaded as tiny-vit"):
        encoder.encode_texts(["a"])
    assert not (tmp_path / "sprung").exists()
