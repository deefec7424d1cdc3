"""Every tower family, tiny and with random weights from a file, against the model as the library calls it."""

import time
import zipfile
from pathlib import Path

import open_clip
import pytest
import tiny_clip
import torch
from open_clip import pretrained
from PIL import Image
from safetensors.torch import load_file
from tiny_clip import CONFIGS, PICTURES, TEXTS, by_hand
from torch.nn.functional import cosine_similarity, layer_norm, linear

from xshot_bench import InputError
from xshot_bench.datasets.encoders.open_clip import OpenClip, spatial
from xshot_bench.datasets.encoders.open_clip.weights import choose

FAMILIES = [*CONFIGS, "tiny-hf"]
WITH_TOKENS = {
    "tiny-vit": 4, "tiny-clipa": 4, "tiny-rn": 2, "tiny-convnext": 2, "tiny-convnext-d": 2, "tiny-fastvit": 2,
    "tiny-timm-vit": 14, "tiny-timm-gap": 14, "tiny-eva": 16, "tiny-hf": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_clip.make(tmp_path_factory.mktemp("weights"))


def prepared(encoder):
    return torch.stack([encoder.preprocess(picture) for picture in PICTURES])


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_the_model_called_by_hand(files, name):
    encoder = OpenClip.open(f"{name}@{files[name]}")
    model, batch = by_hand(name, files[name])
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    with torch.no_grad():
        image, text = model.encode_image(batch, normalize=False), model.encode_text(tokens, normalize=False)
    assert torch.allclose(encoder.encode_images(prepared(encoder)).image, image, atol=1e-6)
    assert torch.allclose(encoder.encode_texts(TEXTS), text, atol=1e-6)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-rn"])
def test_pictures_come_to_the_tower_as_its_own_transform_prepares_them(files, name):
    encoder = OpenClip.open(f"{name}@{files[name]}")
    assert prepared(encoder).dtype == torch.uint8
    assert torch.equal(encoder._loaded.pixels.to_numbers(prepared(encoder)), by_hand(name, files[name])[1])


def test_what_is_transparent_is_white(files):
    encoder = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert torch.equal(encoder.preprocess(clear), encoder.preprocess(Image.new("RGB", (32, 32), "white")))
    opaque = PICTURES[0].convert("RGBA")
    assert torch.equal(encoder.preprocess(opaque), encoder.preprocess(PICTURES[0]))


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-rn"])
def test_a_file_of_pytorchs_own_gives_the_same(files, name):
    one, two = (OpenClip.open(f"{name}@{files[name].with_suffix(suffix)}") for suffix in (".safetensors", ".pt"))
    assert torch.equal(one.encode_images(prepared(one)).image, two.encode_images(prepared(two)).image)


class Holder(torch.nn.Module):
    """Holds tensors by their dotted names, as a TorchScript archive of OpenAI's does."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                parts.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(first, tensor)
        for first, inner in parts.items():
            self.add_module(first, Holder(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_openais_archives_are_read(files, tmp_path):
    plain = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    settings = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.jit.script(Holder(load_file(files["tiny-vit"]) | settings)).save(tmp_path / "archive.pt")
    archive = OpenClip.open(f"tiny-vit@{tmp_path / 'archive.pt'}")
    image, text = plain.encode_images(prepared(plain)).image, plain.encode_texts(TEXTS)
    assert torch.allclose(archive.encode_images(prepared(archive)).image, image, atol=1e-6)
    assert torch.allclose(archive.encode_texts(TEXTS), text, atol=1e-6)


class Waking(torch.nn.Module):
    """A module with code that TorchScript runs as it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> bool:
        return True

    @torch.jit.export
    def __setstate__(self, state: bool) -> None:
        self.training = state
        torch.save(torch.ones(1), "woken")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_an_archive_that_would_run_code_is_refused(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Waking()).save("archive.pt")
    torch.jit.load("archive.pt")
    assert Path("woken").exists()  # what PyTorch's reader does
    Path("woken").unlink()
    with pytest.raises(InputError, match=r"archive.pt holds code that runs when it is loaded \(__setstate__\)"):
        OpenClip.open("tiny-vit@archive.pt").encode_texts(TEXTS)
    assert not Path("woken").exists()


def test_an_archive_that_would_fill_the_disk_is_refused(files, tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(InputError, match=r"would become more than 100 times its size"):
        OpenClip.open(f"tiny-vit@{tmp_path / 'archive.pt'}").encode_texts(TEXTS)


def test_the_sigmoid_loss_has_a_bias(files):
    biased = OpenClip.open(f"tiny-sigmoid@{files['tiny-sigmoid']}")
    assert biased.logit_bias == -10
    assert OpenClip.open(f"tiny-vit@{files['tiny-vit']}").logit_bias == 0


@pytest.mark.parametrize(
    ("name", "precision"), [(name, "bf16") for name in FAMILIES] + [("tiny-vit", "fp16"), ("tiny-rn", "fp16")]
)
def test_half_precision_is_close_and_known_by_its_fingerprint(files, name, precision):
    full = OpenClip.open(f"{name}@{files[name]}")
    half = OpenClip.open(f"{name}@{files[name]}", precision=precision)
    assert half.fingerprint != full.fingerprint
    assert half.logit_scale == full.logit_scale
    grid = WITH_TOKENS.get(name, 0)
    one, two = (encoder.encode_images(prepared(encoder), tokens=grid) for encoder in (full, half))
    assert two.image.dtype == torch.float32
    assert cosine_similarity(one.image, two.image).min() > 0.99
    assert not torch.equal(one.image, two.image)
    assert cosine_similarity(full.encode_texts(TEXTS), half.encode_texts(TEXTS)).min() > 0.99
    if grid:
        assert cosine_similarity(one.tokens, two.tokens, dim=2).mean() > 0.99


@pytest.mark.parametrize(("name", "grid"), WITH_TOKENS.items())
def test_tokens_change_nothing_of_the_global_feature_and_are_averaged_to_a_grid(files, name, grid):
    encoder = OpenClip.open(f"{name}@{files[name]}")
    batch = prepared(encoder)
    assert encoder.grid == grid
    features = encoder.encode_images(batch, tokens=grid)
    assert torch.allclose(features.image, encoder.encode_images(batch).image, atol=1e-5)
    assert features.tokens.shape == (3, grid * grid, features.image.shape[1])
    half = encoder.encode_images(batch, tokens=grid // 2).tokens.unflatten(1, (grid // 2, grid // 2))
    full = features.tokens.unflatten(1, (grid, grid))
    assert torch.allclose(half[:, 0, -1], full[:, :2, -2:].mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-sigmoid", "tiny-coca"])
def test_where_learnt_queries_pool_there_are_no_tokens(files, name):
    encoder = OpenClip.open(f"{name}@{files[name]}")
    assert encoder.grid == 0
    with pytest.raises(InputError, match=rf"{name} has no 7 x 7 tokens in the joint space: .*quer"):
        encoder.encode_images(prepared(encoder), tokens=7)


def test_a_finer_grid_than_the_towers_cannot_be_had(files):
    encoder = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    with pytest.raises(InputError, match=r"no 7 x 7 tokens .* its grid is 4 x 4"):
        encoder.encode_images(prepared(encoder), tokens=7)


def seen_by(module, model, batch):
    """What a module gives as the model encodes the batch."""
    seen = {}
    with torch.no_grad():
        handle = module.register_forward_hook(lambda _m, _i, output: seen.update(x=output))
        model.encode_image(batch)
        handle.remove()
    return seen["x"]


def test_vit_tokens_are_the_patches_after_norm_and_projection(files):
    for name in ("tiny-vit", "tiny-clipa"):
        encoder = OpenClip.open(f"{name}@{files[name]}")
        model, batch = by_hand(name, files[name])
        visual = model.visual
        hidden = seen_by(visual.transformer, model, batch)[:, 1:]
        normed = layer_norm(hidden, hidden.shape[2:], visual.ln_post.weight, visual.ln_post.bias)
        expected = torch.einsum("npw,wd->npd", normed, visual.proj)
        assert torch.allclose(encoder.encode_images(prepared(encoder), 4).tokens, expected, atol=1e-5)


def test_resnet_tokens_are_what_attention_pooling_says_of_every_position(files):
    encoder = OpenClip.open(f"tiny-rn@{files['tiny-rn']}")
    model, batch = by_hand("tiny-rn", files["tiny-rn"])
    pool = model.visual.attnpool
    x = seen_by(model.visual.layer4, model, batch).flatten(2).permute(2, 0, 1)
    with torch.no_grad():
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        every = torch.nn.MultiheadAttention(x.shape[-1], pool.num_heads)  # torch's own, given the pool's weights
        every.in_proj_weight.copy_(torch.cat([pool.q_proj.weight, pool.k_proj.weight, pool.v_proj.weight]))
        every.in_proj_bias.copy_(torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]))
        every.out_proj.weight.copy_(torch.eye(x.shape[-1]))
        every.out_proj.bias.zero_()
        expected = pool.c_proj(every(x, x, x)[0])[1:].transpose(0, 1)
    assert torch.allclose(encoder.encode_images(prepared(encoder), 2).tokens, expected, atol=1e-5)


def test_convnext_tokens_are_the_positions_after_norm_and_projection(files):
    encoder = OpenClip.open(f"tiny-convnext@{files['tiny-convnext']}")
    model, batch = by_hand("tiny-convnext", files["tiny-convnext"])
    norm = model.visual.trunk.head.norm
    rows = seen_by(model.visual.trunk.stages, model, batch).flatten(2).transpose(1, 2)
    normed = layer_norm(rows, rows.shape[2:], norm.weight, norm.bias, norm.eps)
    expected = linear(normed, model.visual.head.proj.weight)
    assert torch.allclose(encoder.encode_images(prepared(encoder), 2).tokens, expected, atol=1e-5)


def test_tokens_of_a_timm_vit_are_the_patches_after_norm_and_head(files):
    for name, norm in (("tiny-timm-vit", "norm"), ("tiny-timm-gap", "fc_norm")):
        encoder = OpenClip.open(f"{name}@{files[name]}")
        model, batch = by_hand(name, files[name])
        trunk = model.visual.trunk
        hidden, last = seen_by(trunk.blocks, model, batch)[:, 1:], getattr(trunk, norm)
        expected = trunk.head(layer_norm(hidden, hidden.shape[2:], last.weight, last.bias, last.eps))
        assert torch.allclose(encoder.encode_images(prepared(encoder), 14).tokens, expected, atol=1e-5)


def test_where_a_mean_and_a_linear_map_follow_the_tokens_mean_is_the_global_feature(files):
    encoder = OpenClip.open(f"tiny-fastvit@{files['tiny-fastvit']}")
    features = encoder.encode_images(prepared(encoder), 2)
    assert torch.allclose(features.tokens.mean(1), features.image, atol=1e-4)
    assert features.tokens.std(1).mean() > 0.1 * features.image.abs().mean()


def tower(name):
    """An image tower of open_clip without weights."""
    encoder = OpenClip.__new__(OpenClip)
    encoder.chosen = type("Config", (), {"config": {"quick_gelu": False} | open_clip.get_model_config(name)})
    return encoder._bare_tower


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32", "RN50x4", "convnext_base_w", "EVA02-B-16", "MobileCLIP-S1", "swin_base_patch4_window7_224",
        "ViTamin-S", "vit_relpos_medium_patch16_cls_224", "vit_medium_patch16_gap_256", "ViT-B-16-SigLIP",
        "PE-Core-T-16-384", "coca_ViT-B-32",
        *[pytest.param(name, marks=pytest.mark.slow) for name in open_clip.list_models()],
    ],
)  # fmt: skip
def test_every_architecture_has_tokens_or_a_reason(name):
    config = open_clip.get_model_config(name)
    visual = tower(name)
    assert not any(parameter.device.type != "meta" for parameter in visual.parameters())
    attends = "SigLIP" in name or "siglip" in name or "PE-Core" in name or name.startswith("coca_ViT")
    assert bool(spatial.no_tokens(visual)) == attends
    if not attends:
        size = config["vision_cfg"]["image_size"]
        with torch.inference_mode():
            pooled, positions = spatial.read(visual, torch.zeros(1, 3, size, size, device="meta"))
        assert pooled.shape == (1, config["embed_dim"])
        assert positions.shape[0] == 1 and positions.shape[3] == config["embed_dim"]
        assert positions.shape[1] == positions.shape[2] >= 4


@pytest.mark.parametrize(("name", "context"), [("tiny-vit", 77), ("tiny-coca", 76), ("tiny-hf", 16)])
def test_text_is_cut_at_the_context_and_its_length_known(files, name, context):
    encoder = OpenClip.open(f"{name}@{files[name]}")
    assert encoder.context == context
    texts = ["a", "a red square", "word " * (context - 2), "word " * (context - 1)]
    assert encoder.text_lengths(texts) == [3, 5, context, context + 1]
    cut = encoder.encode_texts(["word " * 300, "word " * (context - 1), "word " * (context - 2)])
    assert torch.equal(cut[0], cut[2]) and torch.equal(cut[1], cut[2])


def test_the_fingerprint_follows_weights_and_preprocessing(files, tmp_path, monkeypatch):
    one = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(files["tiny-vit"].read_bytes()[:-4] + b"\0\0\0\1")
    assert one.fingerprint == OpenClip.open(f"tiny-vit@{files['tiny-vit']}").fingerprint
    assert one.fingerprint != OpenClip.open(f"tiny-vit@{changed}").fingerprint
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-vit", {"tag": pretrained._slpcfg()})
    assert one.fingerprint != OpenClip.open(f"tiny-vit@tag={files['tiny-vit']}").fingerprint


def test_a_tag_says_how_pictures_are_prepared_and_which_gelu_is_computed(files, monkeypatch):
    tag = pretrained._slpcfg(quick_gelu=True, interpolation="bilinear")
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-vit", {"tag": tag})
    encoder = OpenClip.open(f"tiny-vit@tag={files['tiny-vit']}")
    model, _, preprocess = open_clip.create_model_and_transforms(
        "tiny-vit", str(files["tiny-vit"]), force_quick_gelu=True, image_mean=(0.5,) * 3, image_std=(0.5,) * 3,
        image_interpolation="bilinear", image_resize_mode="squash",
    )  # fmt: skip
    batch = torch.stack([preprocess(picture) for picture in PICTURES])
    with torch.no_grad():
        expected = model.eval().encode_image(batch)
    assert torch.allclose(encoder.encode_images(prepared(encoder)).image, expected, atol=1e-6)
    plain = OpenClip.open(f"tiny-vit@{files['tiny-vit']}")  # its only tag is agreed with itself, but for the GELU
    assert torch.equal(prepared(plain), prepared(encoder))
    assert not torch.allclose(plain.encode_images(prepared(plain)).image, expected, atol=1e-6)


def test_known_models_want_what_their_tags_want(files):
    file = files["tiny-vit"]
    assert choose(f"ViT-B-16-SigLIP@{file}").preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert choose(f"ViT-B-16-SigLIP@{file}").preprocessing["resize_mode"] == "squash"
    assert choose(f"ViT-B-32@{file}").preprocessing["mean"] == list(open_clip.OPENAI_DATASET_MEAN)
    assert choose(f"ViT-L-14@laion2b_s32b_b82k={file}").preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert choose(f"ViT-L-14@{file}").preprocessing == {}
    assert choose(f"ViT-B-32@openai={file}").config["quick_gelu"]
    assert choose(f"ViT-B-32-quickgelu@{file}").config["quick_gelu"]
    assert not choose(f"ViT-B-32@{file}").config["quick_gelu"]


def test_all_that_the_library_lists_can_be_asked_for(files):
    for model, tag in open_clip.list_pretrained():
        chosen = choose(f"{model}@{tag}={files['tiny-vit']}")
        known = open_clip.get_pretrained_cfg(model, tag)
        assert all(tuple(chosen.preprocessing[key]) == tuple(known[key]) for key in ("mean", "std", "resize_mode"))
        own = open_clip.get_model_config(model).get("quick_gelu", False)
        assert chosen.config["quick_gelu"] == (known.get("quick_gelu", False) or own)


def test_without_network_and_weights_one_clear_error_comes_soon(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(InputError, match=r"Give a local file instead: open_clip:ViT-B-32@laion2b_s34b_b79k=/path/to"):
        OpenClip.open("ViT-B-32@laion2b_s34b_b79k")
    assert time.monotonic() - start < 30


def test_without_network_a_text_tower_of_the_hub_is_said_to_be_missing(files):
    encoder = OpenClip.open(f"roberta-ViT-B-32@{files['tiny-vit']}")
    start = time.monotonic()
    for use in (encoder.encode_texts, encoder.text_lengths):
        with pytest.raises(InputError, match=r"needs .*json of 'roberta-base' from the Hugging Face hub"):
            use(["a"])
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "needs a model and its weights"),
        ("ViT-B-32", "needs a model and its weights"),
        ("ViT-B32@openai", "Did you mean 'ViT-B-32'"),
        ("ViT-B-32@laion2b", "Did you mean 'laion2b"),
        ("ViT-B-32@nowhere/file.pt", "there is no weights file"),
        ("ViT-B-32@openai=nowhere.pt", "there is no weights file"),
        ("coca_base@anything", "has no weights 'anything' for coca_base. It has none"),
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
    with pytest.raises(InputError, match="cannot be loaded as tiny-vit: it holds pickled objects.* Expected"):
        encoder.encode_texts(["a"])
    assert not (tmp_path / "sprung").exists()
