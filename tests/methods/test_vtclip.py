"""VT-CLIP: where it starts, what its texts depend on, and that the cheap evaluation is the plain one."""

import dataclasses

import numpy as np
import pytest
import torch
from cases import World, fitted
from torch.nn.functional import layer_norm, normalize

from xshot_bench.methods.vtclip import VtClip, attention
from xshot_bench.methods.vtclip.attention import Guide, Shape
from xshot_bench.methods.vtclip.training import Lesson

WORLD = World(tokens=5)
DECODER = {"layers": 2, "self_attention": True, "ffn": True}


def guide_of(heads=1, width=8, layers=1, self_attention=False, ffn=False, d=16):
    """A guide in float64 all of whose parameters are at random, as if it were trained."""
    generator = torch.Generator().manual_seed(0)
    guide = Guide(Shape(d, width, heads, layers, self_attention, ffn), 0.7, generator).double()
    for parameter in guide.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * (parameter.ndim / 4)
    return guide


def inputs(images=4, texts=6, positions=5, d=16):
    generator = torch.Generator().manual_seed(1)
    rows = lambda *shape: normalize(torch.randn(*shape, d, generator=generator, dtype=torch.float64), dim=-1)  # noqa: E731
    return rows(images), rows(texts), rows(3), rows(images, positions)


def raw(**parameters):
    return VtClip(**{"normalise": "none", "steps": 10} | parameters)


@pytest.mark.parametrize("nothing", [{"steps": 0}, {"alpha": 0.0, "residual": "fixed"}, {"steps": 0} | DECODER])
def test_at_first_it_is_zero_shot(nothing):
    task = WORLD.task(shots=2)
    items = WORLD.test_items(task)
    found = fitted(lambda: raw(**nothing), task).score(items.image, items.text, items.tokens)
    torch.testing.assert_close(found, items.image @ items.text.T)
    trained = fitted(raw, task).score(items.image, items.text, items.tokens)
    assert not torch.allclose(trained, items.image @ items.text.T, atol=1e-3)


@pytest.mark.parametrize("decoder", [{}, DECODER])
def test_the_order_of_positions_does_not_matter(decoder):
    guide, (image, texts, context, tokens) = guide_of(**decoder), inputs()
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(guide(image, texts, context, tokens[:, order]), guide(image, texts, context, tokens))
    assert not torch.allclose(guide(image, texts, context, tokens.flip(0)), guide(image, texts, context, tokens))


@pytest.mark.parametrize("self_attention", [False, True])
def test_a_class_depends_on_the_other_classes_only_with_self_attention(self_attention):
    guide, (image, texts, _, tokens) = guide_of(self_attention=self_attention), inputs()
    some = torch.tensor([4, 0, 1])
    whole = guide(image, texts, texts, tokens)[:, some]
    part = guide(image, texts[some], texts[some], tokens)
    assert torch.allclose(whole, part) != self_attention
    torch.testing.assert_close(guide(image, texts[some], texts, tokens), whole)


def test_one_class_one_image_one_position():
    for decoder in ({}, DECODER):
        guide, (image, texts, _, tokens) = guide_of(**decoder), inputs()
        one = guide(image[:1], texts[:1], texts[:1], tokens[:1, :1])
        assert one.shape == (1, 1)
        assert abs(one.item()) <= 1


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("self_attention", [False, True])
def test_the_cheap_evaluation_is_the_plain_one(heads, self_attention):
    """In value and in gradient."""
    guide, given = guide_of(heads, self_attention=self_attention), inputs()
    cheap, plain = guide.cheap(*given), guide.plain(*given)
    torch.testing.assert_close(cheap, plain, rtol=1e-6, atol=1e-12)
    weight = torch.randn(cheap.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    first, second = (torch.autograd.grad((out * weight).sum(), list(guide.parameters())) for out in (cheap, plain))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10)


def test_the_cheap_evaluation_is_used_where_it_pays():
    wide = Shape(features=384, width=64, heads=1, layers=1, self_attention=True, ffn=False)
    assert wide.is_cheap(positions=49)
    for change in ({"heads": 8}, {"layers": 2}, {"ffn": True}):
        assert not dataclasses.replace(wide, **change).is_cheap(positions=49)


@pytest.mark.parametrize("heads", [1, 8])
def test_blocks_change_nothing(heads, monkeypatch):
    guide, given = guide_of(heads), inputs()
    whole = guide(*given)
    monkeypatch.setattr(attention, "NUMBERS", 1)
    torch.testing.assert_close(guide(*given), whole)


def torch_attention(ours, heads):
    """torch's own multi-head attention with the same weights."""
    d = len(ours.query)
    peer = torch.nn.MultiheadAttention(d, heads, bias=False, batch_first=True, dtype=torch.float64)
    peer.in_proj_weight.data = torch.cat([ours.query.T, ours.key.T, ours.value.T])
    peer.out_proj.weight.data = ours.out.T
    return lambda x, memory: peer(x, memory, memory)[0]


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_that_of_torch(heads):
    guide, (image, texts, context, tokens) = guide_of(heads, width=16, self_attention=True, ffn=True), inputs()
    layer = guide.layers[0]
    x = torch.cat([texts, context])[None]
    seen = layer_norm(x, [16])
    x = x + torch_attention(layer.among, heads)(seen, seen[:, len(texts) :])
    x = x.expand(len(image), -1, -1)
    x = x + torch_attention(layer.across, heads)(x, tokens)
    inner = torch.nn.functional.gelu(layer_norm(x, [16]) @ layer.ffn.wide + layer.ffn.bias)
    x = (x + inner @ layer.ffn.narrow)[:, : len(texts)]
    guided = texts + guide.alpha * (x - texts)
    expected = torch.nn.functional.cosine_similarity(image[:, None], guided, dim=-1)
    torch.testing.assert_close(guide(image, texts, context, tokens), expected)


@pytest.mark.parametrize("objective", ["classes", "pairs", "both"])
def test_the_loss_by_hand(objective):
    """Three items, two of one class, in numpy."""
    task = WORLD.task(shots=2)
    pairs = task.support.rows(torch.tensor([0, 1, 2]))
    assert pairs.label.tolist() == [12, 12, 13]
    method = fitted(lambda: raw(objective=objective), task)
    row, texts = pairs.label - 12, task.class_text[12:]
    lesson = Lesson.of(task, method.guide, objective)
    batch = pairs.image, pairs.text, pairs.tokens, row, texts
    z = 10.0 * np.array([[float(method.guide(g[None], t[None], texts, f[None])) for t in (*texts, *pairs.text)]
                         for g, f in zip(pairs.image, pairs.tokens, strict=True)])  # fmt: skip
    log = lambda rows: rows - np.log(np.exp(rows).sum(1, keepdims=True))  # noqa: E731
    classes = -log(z[:, :4])[[0, 1, 2], [0, 0, 1]].mean()
    right = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    among = z[:, 4:]
    symmetric = -((right * log(among)).sum() + (right * log(among.T)).sum()) / 3 / 2
    expected = {"classes": classes, "pairs": symmetric, "both": classes + symmetric}[objective]
    assert float(lesson.loss(method.guide.state_dict(), batch)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("normalise", ["mean", "lse"])
def test_normalising_subtracts_what_an_image_scores_with_known_texts(normalise):
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    plain, moved = (
        fitted(lambda n=n: raw(normalise=n), task).score(items.image, items.text, items.tokens)
        for n in ("none", normalise)
    )
    known = torch.cat([task.class_text[task.candidates], task.support.text])
    usual = fitted(raw, task).score(items.image, known, items.tokens)
    expected = usual.mean(1) if normalise == "mean" else (10 * usual).exp().sum(1).log() / 10
    torch.testing.assert_close(plain - moved, expected[:, None].expand_as(plain))


def test_posteriors_by_hand():
    """Softened by the spread of the source items' scores, as the harness does it for other methods."""
    task = WORLD.task(shots=1)
    items = WORLD.test_items(task)
    prompts = task.class_text[task.candidates]
    method = fitted(lambda: raw(score_by="posterior"), task)
    guided = fitted(raw, task)

    def posterior(scores, known):
        return torch.softmax(1.5 * scores / (known - known.mean(1, keepdim=True)).square().mean().sqrt(), 1)

    image = posterior(
        guided.score(items.image, prompts, items.tokens), guided.score(task.source.image, prompts, task.source.tokens)
    )
    text = posterior(items.text @ prompts.T, task.source.text @ prompts.T)
    torch.testing.assert_close(method.score(items.image, items.text, items.tokens), image @ text.T)


def test_a_fixed_residual_weight_stays():
    task = WORLD.task(shots=1)
    assert fitted(lambda: VtClip(alpha=0.25, residual="fixed"), task).diagnostics()["alpha"] == 0.25
    assert fitted(lambda: VtClip(alpha=0.25), task).diagnostics()["alpha"] != 0.25


@pytest.mark.parametrize(("source_classes", "suited"), [(12, "both"), (0, "classes")])
def test_what_suits_the_task(source_classes, suited):
    world = World(source_classes=source_classes, tokens=5)
    task = world.task(shots=2)
    items = world.test_items(task)
    found = {o: fitted(lambda o=o: raw(objective=o), task) for o in ("suited", "classes", "pairs", "both")}
    scores = {o: method.score(items.image, items.text, items.tokens) for o, method in found.items()}
    assert [o for o in ("classes", "pairs", "both") if torch.equal(scores[o], scores["suited"])] == [suited]
