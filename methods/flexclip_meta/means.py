"""Stage 1: a generator that learns, across source classes, where a class lies given its text and a few shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import Adam, unit
from xshot_bench.methods.base import MODALITIES, Pairs, Task
from xshot_bench.methods.flexclip.fidelity import fidelity
from xshot_bench.methods.flexclip.generation import Critic, Encoder, Sizes, class_uniform
from xshot_bench.methods.flexclip.stacked import Linear, M, lrelu, positions

if TYPE_CHECKING:
    from xshot_bench.methods.flexclip_meta import FlexClipMeta

BLOCK = 20  # rounds whose random numbers are drawn at once
SMALL = 0.2  # scale of the condition: a larger one lets the generator learn the source classes by heart
SIMULATED = 20  # generated pairs of a source class, on average, to be compared with real ones
FASTER = 30.0  # how much faster the three weights k are learnt than the networks


@dataclass(frozen=True)
class Condition:
    """What the generator is told of a class: ``parts [S,B,3,d]`` (text, own and other modality's mean of the shots),
    and ``code [S,B,3r]``, the same on a few principal directions.
    """

    parts: Tensor
    code: Tensor

    def split(self, sizes: int) -> list[Condition]:
        pieces = zip(self.parts.split(sizes, 1), self.code.split(sizes, 1), strict=True)
        return [Condition(parts, code) for parts, code in pieces]


class MeanGenerator:
    """G(z, q) = unit(k₁·a + k₂·own + k₃·other + R(z, q)); k and R are learnt, for each modality apart."""

    def __init__(self, draws: Draws, sizes: Sizes) -> None:
        self.weight = draws.like.new_ones(len(draws.generators) * M, 1, 3).requires_grad_()
        self.hidden = Linear.new(draws, [sizes.latent, sizes.code], sizes.hidden, gain=2**0.5)
        self.out = Linear.new(draws, [sizes.hidden], sizes.width, gain=0.03)
        self.parameters = self.hidden.parameters + self.out.parameters

    def base(self, condition: Condition) -> Tensor:
        """k₁·a + k₂·own + k₃·other, ``[S,B,d]``."""
        return (self.weight[..., None] * condition.parts).sum(2)

    def residual(self, z: Tensor, condition: Condition) -> Tensor:
        """R(z, q), ``[S,B,d]``."""
        return self.out(lrelu(self.hidden(z, condition.code)))

    def __call__(self, z: Tensor, condition: Condition) -> Tensor:
        return unit(self.base(condition) + self.residual(z, condition))


class Episodes:
    """The source items of E draws with simulated shots: for an item, X others of its class.

    Nothing is fitted over several draws: each has its own principal directions.
    """

    def __init__(self, tasks: Sequence[Task], directions: int) -> None:
        self.tasks, self.shots = tasks, tasks[0].shots
        sources = [task.source for task in tasks]
        self.weights = [class_uniform(pairs.label) for pairs in sources]
        self.feature = torch.cat([torch.stack([p[m] for m in MODALITIES], 1) for p in sources])  # [N,M,d]
        self.label = torch.cat([p.label for p in sources])
        self.starts = [sum(map(len, sources[:e])) for e in range(len(sources))]
        self.text = torch.stack([task.class_text for task in tasks])
        rank = min(directions, self.text.shape[2], *(M * len(p) for p in sources))
        self.basis = torch.stack([directions_of(p, rank) for p in sources]).repeat_interleave(M, 0)
        order = [torch.argsort(p.label, stable=True) + start for p, start in zip(sources, self.starts, strict=True)]
        self.by_class = torch.cat(order)  # positions, class by class within a draw
        counts = torch.stack([torch.bincount(p.label, minlength=self.text.shape[1]) for p in sources])
        self.counts = counts
        self.first = counts.cumsum(1) - counts + torch.tensor(self.starts, device=counts.device)[:, None]
        self.place = torch.empty_like(self.by_class)
        self.place[self.by_class] = torch.arange(len(self.by_class), device=self.by_class.device)

    def features(self, at: Tensor) -> Tensor:
        """``[S,B,d]`` for positions ``[E,B]``."""
        return self.feature[at].transpose(1, 2).flatten(0, 1)

    def simulated(self, at: Tensor, chance: Tensor) -> Condition:
        """The condition of the items at ``[E,B]``: X other items of the class, picked by ``chance [E,B,X]``."""
        draw = torch.arange(len(at), device=at.device)[:, None]
        label = self.label[at]
        others, first = self.counts[draw, label] - 1, self.first[draw, label]
        pick = (chance * others[..., None]).long().clamp_max((others - 1).clamp_min(0)[..., None])
        pick += pick >= (self.place[at] - first)[..., None]
        pick = pick.clamp_max(others[..., None])
        shots = self.feature[self.by_class[first[..., None] + pick]]  # [E,B,X,M,d]
        return self.condition(self.text[draw, label], shots.mean(2) if self.shots else None)

    def of_classes(self, classes: Tensor) -> Condition:
        """The condition of ``classes [E,k]``, from all of their labelled items."""
        draw = torch.arange(len(classes), device=classes.device)[:, None]
        means = None
        if self.shots:
            labelled = [task.labelled for task in self.tasks]
            each = [[p.means(m, c) for m in MODALITIES] for p, c in zip(labelled, classes, strict=True)]
            means = torch.stack([torch.stack(pair, 1) for pair in each])  # [E,k,M,d]
        return self.condition(self.text[draw, classes], means)

    def condition(self, text: Tensor, means: Tensor | None) -> Condition:
        """Class texts ``[E,B,d]`` and means of shots ``[E,B,M,d]`` -> for each modality its own view of them."""
        if means is None:
            means = text.new_zeros(*text.shape[:2], M, text.shape[2])
        own = means.transpose(1, 2)
        parts = torch.stack([text[:, None].expand_as(own), own, own.flip(1)], 3).flatten(0, 1)
        code = SMALL * parts @ self.basis[:, None]
        return Condition(parts, code.flatten(2))


def directions_of(pairs: Pairs, rank: int) -> Tensor:
    """The principal directions of both modalities' features, as columns ``[d,rank]``; the largest entry is positive."""
    found = torch.linalg.svd(torch.cat([pairs.image, pairs.text]), full_matrices=False)[2][:rank]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return (found * largest.sign()).T


class ClassMeans:
    """The generators of E draws, trained on source classes, then asked for the target classes.

    With z from the encoder of either modality: 20·‖x − G(z, q)‖² + 0.1·KL, and the critic's term as in flexclip.
    """

    def __init__(self, method: FlexClipMeta, tasks: Sequence[Task]) -> None:
        self.method, self.tasks = method, tasks
        self.episodes = Episodes(tasks, method.directions)
        draws = Draws(tasks, "flexclip_meta: initial networks")
        code = 3 * self.episodes.basis.shape[2]
        sizes = Sizes(tasks[0].class_text.shape[1], code, method.hidden, method.latent)
        self.generator = MeanGenerator(draws, sizes)
        self.encoder, self.critic = Encoder(draws, sizes), Critic(draws, sizes)
        self.optimiser = Adam([*self.generator.parameters, *self.encoder.parameters], method.generator_rate, 0.5)
        self.weights = Adam([self.generator.weight], FASTER * method.generator_rate, 0.5)
        self.critics = Adam(self.critic.parameters, method.generator_rate, 0.5)
        self.watched: dict[str, Tensor] = {}

    def train(self) -> None:
        """All rounds; a round is ``critic_steps`` steps of the critic, if there is one, and one of the generator."""
        method, draws, data = self.method, Draws(self.tasks, "flexclip_meta: stage 1"), self.episodes
        steps = method.critic_steps if method.gan else 0
        for start in range(0, method.rounds, BLOCK):
            rounds = min(BLOCK, method.rounds - start)
            at = positions(draws, data.weights, data.starts, rounds, steps + 1, method.batch)
            chance = draws.uniform(rounds, steps + 1, method.batch, data.shots)
            noise = draws.normal(rounds, steps + 2, M, method.batch, method.latent)
            mix = draws.uniform(rounds, steps, M, method.batch, 1)
            for r in range(rounds):
                x = data.features(at[:, r].flatten(1)).split(method.batch, 1)
                q = data.simulated(at[:, r].flatten(1), chance[:, r].flatten(1, 2)).split(method.batch)
                z = noise[:, r].transpose(0, 1).flatten(1, 2)
                for k in range(steps):
                    self._critic_step(x[k], q[k], z[k], mix[:, r, k].flatten(0, 1))
                self._generator_step(x[steps], q[steps], z[steps], z[steps + 1])

    @torch.no_grad()
    def of_classes(self, classes: Sequence[Tensor]) -> Tensor:
        """The generated mean feature of ``classes [k]``, one set a draw, ``[E,M,k,d]``."""
        condition = self.episodes.of_classes(torch.stack(list(classes)))
        z = condition.code.new_zeros(*condition.code.shape[:2], self.method.latent)
        return self.generator(z, condition).unflatten(0, (-1, M))

    @torch.no_grad()
    def pseudo_pairs(self, classes: Sequence[Tensor]) -> list[Pairs]:
        """``pseudo`` pairs of each target class ``[k]``: its mean, and about it ``spread`` times what R varies with z.

        Image and text of a pair are made from one z.
        """
        method, count = self.method, self.method.pseudo
        label = torch.stack(list(classes)).repeat_interleave(count, 1)
        condition = self.episodes.of_classes(label)
        draws = Draws(self.tasks, "flexclip_meta: pseudo items")
        z = draws.normal(1, label.shape[1], method.latent).expand(-1, M, -1, -1).flatten(0, 1)
        residual = self.generator.residual(z, condition).unflatten(1, (-1, count))
        centre = self.generator.residual(torch.zeros_like(z), condition).unflatten(1, (-1, count))
        varied = centre + method.spread * (residual - residual.mean(2, keepdim=True))
        made = unit(self.generator.base(condition) + varied.flatten(1, 2)).unflatten(0, (-1, M))
        return [Pairs(image, text, y) for (image, text), y in zip(made, label, strict=True)]

    @torch.no_grad()
    def simulated_pairs(self) -> list[Pairs]:
        """Generated pairs of the source classes, each from X of their items, as a target class has them."""
        data, draws = self.episodes, Draws(self.tasks, "flexclip_meta: pseudo source items")
        at = positions(draws, data.weights, data.starts, SIMULATED * len(self.tasks[0].source_classes))
        condition = data.simulated(at, draws.uniform(at.shape[1], data.shots))
        z = self.method.spread * draws.normal(1, at.shape[1], self.method.latent)
        made = self.generator(z.expand(-1, M, -1, -1).flatten(0, 1), condition).unflatten(0, (-1, M))
        return [Pairs(image, text, label) for (image, text), label in zip(made, data.label[at], strict=True)]

    def diagnostics(self, pseudo: Sequence[Pairs]) -> list[dict[str, float]]:
        """What the last round looked like, for each draw, averaged over the modalities; the weights k; and how near
        the ``pseudo`` pairs of target classes, and such of source classes, are to real ones.
        """
        k = self.generator.weight.detach()[:, 0]
        watched = self.watched | {"k text": k[:, 0], "k own": k[:, 1], "k other": k[:, 2]}
        values = {name: value.unflatten(0, (-1, M)).mean(1) for name, value in watched.items()}
        seen = [{name: float(value[e]) for name, value in values.items()} for e in range(len(self.tasks))]
        made = [p + known for p, known in zip(pseudo, self.simulated_pairs(), strict=True)]
        return [s | fidelity(task, m) for s, task, m in zip(seen, self.tasks, made, strict=True)]

    def _critic_step(self, x: Tensor, q: Condition, noise: Tensor, mix: Tensor) -> None:
        with torch.no_grad():
            mean, log_variance = self.encoder(x, q.code)
            fake = self.generator(mean + (0.5 * log_variance).exp() * noise, q)
        gradients, norm, gap = self.critic.gradients(x, fake, mix * x + (1 - mix) * fake, q.code, self.method.penalty)
        self.critics.step(gradients)
        self.watched |= {"critic gradient norm": norm, "critic gap": gap}

    def _generator_step(self, x: Tensor, q: Condition, noise: Tensor, prior: Tensor) -> None:
        method = self.method
        mean, log_variance = self.encoder(x, q.code)
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1).mean(1)
        z = mean + (0.5 * log_variance).exp() * noise
        other = z.unflatten(0, (-1, M)).flip(1).flatten(0, 1)
        errors = [(self.generator(latent, q) - x).square().sum(-1).mean(1) for latent in (z, other)]
        loss = method.kl * kl + method.reconstruction * (errors[0] + errors[1]) / 2
        if method.gan:
            loss = loss - method.gan * self.critic(self.generator(prior, q), q.code).mean(1)
        gradients = torch.autograd.grad(loss.sum(), [*self.optimiser.parameters, self.generator.weight])
        self.optimiser.step(gradients[:-1])
        self.weights.step(gradients[-1:])
        self.watched |= {"KL": kl.detach(), "reconstruction error": errors[0].detach()}
