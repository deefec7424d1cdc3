"""An encoder's live towers give what the encoder gives, and gradients pass through them."""

import pytest
import tiny_clip
import torch
from PIL import Image
from tiny_clip import CONFIGS, PICTURES, by_hand

from xshot_bench import InputError
from xshot_bench.datasets.encoders.lite0_minilm import Lite0MiniLM
from xshot_bench.datasets.encoders.open_clip import OpenClip
from xshot_bench.datasets.encoders.pair import Pair

FAMILIES = [*CONFIGS, "tiny-hf"]
TEXTS = ["a red square", "two dogs", "a a a red dogs two square", "word " * 300]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_clip.make(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def lite0():
    return Lite0MiniLM.open("")


def pixels(encoder):
    return torch.stack([encoder.preprocess(picture) for picture in PICTURES])


def check_gives_the_features(encoder):
    live = encoder.live()
    assert torch.allclose(live.text(TEXTS), encoder.encode_texts(TEXTS), atol=1e-5)
    assert torch.allclose(live.image(pixels(encoder)), encoder.encode_images(pixels(encoder)).image, atol=1e-4)
    assert not any(parameter.requires_grad for tower in (live.text, live.image) for parameter in tower.parameters())


def check_context_words_are_as_words(encoder, words="a red"):
    """A text's own token embeddings as context are as that text."""
    text = encoder.live().text
    vectors = text.vectors(words)
    assert vectors.shape[0] == len(words.split())
    for context in (vectors, vectors.expand(2, -1, -1)):
        found = text(["square", "two dogs"], context)
        expected = encoder.encode_texts([f"{words} square", f"{words} two dogs"])
        assert torch.allclose(found, expected, atol=1e-5)


def check_gradients_are_right(encoder):
    """Along a random direction the gradient by the context is the difference quotient."""
    text = encoder.live().text
    context = text.vectors("a red").clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    toward, step = (torch.randn(size, generator=generator) for size in (text(["dogs"]).shape[1], context.shape))

    def value(x):
        return (text(["dogs"], x).double() @ toward.double()).sum()

    (gradient,) = torch.autograd.grad(value(context), context)
    eps = 1e-2 * context.detach().norm() / step.norm()
    quotient = (value(context.detach() + eps * step) - value(context.detach() - eps * step)) / (2 * eps)
    assert float((gradient * step).sum()) == pytest.approx(float(quotient), rel=0.03)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_open_clip(files, name):
    check_gives_the_features(OpenClip.open(f"{name}@{files[name]}"))
    check_context_words_are_as_words(OpenClip.open(f"{name}@{files[name]}"))


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-hf"])
def test_gradients_of_open_clip(files, name):
    check_gradients_are_right(OpenClip.open(f"{name}@{files[name]}"))


def test_lite0_minilm(lite0):
    check_gives_the_features(lite0)
    check_context_words_are_as_words(lite0)
    check_gradients_are_right(lite0)


def test_the_gradient_of_a_picture_passes_the_image_tower(lite0, files):
    """By the weights of the last linear map the gradient of a sum is the sum of that map's input."""
    live = lite0.live()
    head = live.image.heads.image.weight
    changed = head.clone().requires_grad_()
    out = torch.func.functional_call(live.image, {"heads.image.weight": changed}, (pixels(lite0),))
    (gradient,) = torch.autograd.grad(out.sum(), changed)
    pooled, logits = lite0.towers.encode_images(pixels(lite0))
    assert torch.allclose(gradient, lite0.heads.image_input(pooled, logits).sum(0).expand_as(gradient), atol=1e-3)


def test_weights_loaded_while_encoding_let_gradients_pass(files):
    for encoder in (OpenClip.open(f"tiny-vit@{files['tiny-vit']}"), Lite0MiniLM.open("")):
        encoder.encode_texts(["a"])
        encoder.encode_images(encoder.preprocess(Image.new("RGB", (40, 40)))[None])
        check_gradients_are_right(encoder)


def test_each_tower_is_without_the_others_weights(files):
    live = OpenClip.open(f"tiny-vit@{files['tiny-vit']}").live()
    model, _ = by_hand("tiny-vit", files["tiny-vit"])
    layers = {name for name, _ in model.named_parameters() if "." in name}
    for tower, visual in ((live.image, True), (live.text, False)):
        names = {name.removeprefix("tower.").removeprefix("model.") for name, _ in tower.named_parameters()}
        assert {name for name in names if "." in name} == {n for n in layers if n.startswith("visual.") == visual}


def test_context_that_does_not_fit_is_refused(files):
    text = OpenClip.open(f"tiny-hf@{files['tiny-hf']}").live().text
    with pytest.raises(InputError, match="cannot hold 40 context vectors"):
        text(["a"], torch.zeros(40, 16))


def test_a_pair_of_unaligned_towers_has_none():
    assert Pair.open("lite0+minilm").live() is None
