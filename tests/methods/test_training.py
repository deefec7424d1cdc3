"""The shared training loop: optimisers against torch's, what batches hold."""

import dataclasses

import pytest
import torch
from cases import World
from torch.nn.functional import normalize

from xshot_bench.methods._training import Adam, Samples, Sgd, descend, samples_of, side_by_side


def made_up(seed=0, n=7, views=1, networks=2):
    generator = torch.Generator().manual_seed(seed)
    return Samples(
        views=normalize(torch.randn(networks, n, views, 6, generator=generator), dim=-1),
        column=torch.randint(3, (networks, n), generator=generator),
        is_text=torch.zeros(networks, n, dtype=torch.bool),
        weight=torch.ones(networks, n),
        text=normalize(torch.randn(networks, 3, 6, generator=generator), dim=-1),
        scale=10.0,
        generators=tuple(torch.Generator().manual_seed(i) for i in range(networks)),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda p: Adam(p, 0.01, beta1=0.8, decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.999), 1e-8, 0.1)),
        (lambda p: Sgd(p, 0.01), lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    ],
    ids=["adam", "sgd"],
)
def test_optimisers_are_those_of_torch(ours, theirs):
    """Also where a gradient comes transposed, as it does out of a product with a transposed parameter."""
    generator = torch.Generator().manual_seed(0)
    start, x = torch.randn(2, 4, 4, generator=generator), torch.randn(2, 5, 4, generator=generator)
    mine, other = start.clone().requires_grad_(), torch.nn.Parameter(start.clone())
    first, second = ours([mine]), theirs([other])
    for _ in range(5):
        (gradient,) = torch.autograd.grad((x @ mine.mT).sigmoid().sum(), [mine])
        assert not gradient.is_contiguous()
        first.step([gradient])
        second.zero_grad()
        (x @ other.mT).sigmoid().sum().backward()
        second.step()
    torch.testing.assert_close(mine.detach(), other.detach())


def test_descent_lowers_the_loss_at_a_rate_that_falls_to_zero():
    given, moves = made_up(), []
    weight = given.text.clone().requires_grad_()
    at_start = float(given.entropy(10 * given.x @ given.text.mT).sum())

    class Watched(Sgd):
        def step(self, gradients, share=1.0):
            super().step(gradients, share)
            moves.append(share)

    descend(Watched([weight], 0.1), given, lambda part: part.entropy(10 * part.x @ weight.mT), epochs=20, batch=4)
    assert float(given.entropy(10 * given.x @ weight.detach().mT).sum()) < 0.3 * at_start
    assert len(moves) == 40
    assert moves == sorted(moves, reverse=True)
    assert moves[0] == 1
    assert moves[-1] < 0.01


def test_every_item_comes_once_an_epoch_with_what_is_its_own():
    given = made_up(views=3)
    given = dataclasses.replace(given, weight=torch.arange(7.0).repeat(2, 1))
    seen = list(given.batches(epochs=2, size=4))
    assert [part.column.shape[1] for part in seen] == [4, 3, 4, 3]
    for epoch in (seen[:2], seen[2:]):
        item = torch.cat([part.weight for part in epoch], 1).long()
        assert torch.equal(item.sort(1).values, torch.arange(7).repeat(2, 1))
        assert torch.equal(torch.cat([part.column for part in epoch], 1), given.column.gather(1, item))
        x = torch.cat([part.x for part in epoch], 1)
        for network in range(2):
            views = given.views[network, item[network]]
            assert (views == x[network][:, None]).all(2).any(1).all(), "a row is one of its item's views"
    used = {tuple(row) for part in seen for row in part.x[0].tolist()}
    assert len(used) > 7, "another epoch shows other views"


def test_entropy_is_the_weighted_mean():
    given = dataclasses.replace(made_up(), weight=torch.rand(2, 7, generator=torch.Generator().manual_seed(0)))
    logits = given.x @ given.text.mT
    each = -torch.log_softmax(logits, -1).gather(2, given.column[..., None])[..., 0]
    torch.testing.assert_close(given.entropy(logits), (given.weight * each).sum(1) / 7)


def test_samples_of_a_task():
    task = World().task(shots=2)
    views = torch.stack([task.support.image, -task.support.image], 1)
    pairs = dataclasses.replace(task.support, views=views)
    groups = ("image", "text"), ("text", "text")
    given = side_by_side([samples_of(task, group, pairs, task.candidates) for group in groups])
    n = len(pairs)
    assert given.views.shape == (2, 2 * n, 2, 16)
    assert torch.equal(given.x[0, :n], pairs.image)
    assert torch.equal(given.views[0, :n, 1], -pairs.image)
    assert torch.equal(given.views[0, n:, 1], pairs.text), "a text has no other view"
    assert torch.equal(task.candidates[given.column[0]], pairs.label.repeat(2))
    assert given.is_text.sum(1).tolist() == [n, 2 * n]
    assert torch.equal(given.text[1], task.class_text[task.candidates])
