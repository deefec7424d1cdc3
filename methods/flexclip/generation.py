"""Stage 1: a conditional VAE-GAN for each modality that makes pseudo features of the target classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import Adam, unit
from xshot_bench.methods.base import Pairs, Task
from xshot_bench.methods.flexclip.fidelity import fidelity
from xshot_bench.methods.flexclip.stacked import (
    SLOPE,
    Linear,
    M,
    Stack,
    class_basis,
    class_codes,
    conditions,
    lrelu,
)

if TYPE_CHECKING:
    from xshot_bench.methods.flexclip import FlexClip

BLOCK = 20  # rounds whose random numbers are drawn at once


@dataclass(frozen=True)
class Sizes:
    """Lengths of a feature x, a class code a, a hidden layer and a latent z."""

    width: int
    code: int
    hidden: int
    latent: int


class Encoder:
    """q(z | x, a): class-conditional posterior of the latent, ``(mean, log variance)`` of ``[S,B,latent]`` each."""

    def __init__(self, draws: Draws, sizes: Sizes) -> None:
        self.hidden = Linear.new(draws, [sizes.width, sizes.code], sizes.hidden, gain=2**0.5)
        self.heads = Linear.new(draws, [sizes.hidden], 2 * sizes.latent)
        self.parameters = self.hidden.parameters + self.heads.parameters

    def __call__(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.heads(lrelu(self.hidden(x, a))).chunk(2, -1)
        return mean, log_variance


class Generator:
    """G(z, a) = unit(T(a) + R(z, a)): the VAE's decoder and the GAN's generator in one; unit features ``[S,B,d]``.

    T(a) is the class text itself where ``basis [S,r,d]`` turns codes back into texts, else there is no such term:
    then G must learn the text's place in the space, and with few source classes it does so for these alone.
    """

    def __init__(self, draws: Draws, sizes: Sizes, basis: Tensor | None) -> None:
        self.basis = basis
        self.hidden = Linear.new(draws, [sizes.latent, sizes.code], sizes.hidden, gain=2**0.5)
        self.out = Linear.new(draws, [sizes.hidden], sizes.width, gain=0.03)
        self.parameters = self.hidden.parameters + self.out.parameters

    def __call__(self, z: Tensor, a: Tensor) -> Tensor:
        residual = self.out(lrelu(self.hidden(z, a)))
        return unit(residual if self.basis is None else torch.baddbmm(residual, a, self.basis))


class Critic:
    """D(x, a) = wᵀ lrelu(W_xᵀx + W_aᵀa + b), higher for real features; ``[S,B]``.

    A constant added to D would change no loss, so there is none.
    """

    def __init__(self, draws: Draws, sizes: Sizes) -> None:
        self.hidden = Linear.new(draws, [sizes.width, sizes.code], sizes.hidden, gain=2**0.5)
        self.out = (draws.normal(M, 1, sizes.hidden).flatten(0, 1) / sizes.hidden**0.5).requires_grad_()
        self.parameters = [*self.hidden.parameters, self.out]

    def __call__(self, x: Tensor, a: Tensor) -> Tensor:
        return (lrelu(self.hidden(x, a)) * self.out).sum(-1)

    @torch.no_grad()
    def gradients(
        self, real: Tensor, fake: Tensor, mixed: Tensor, a: Tensor, penalty: float
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Of the loss  penalty·E(‖∇D(mixed)‖ − 1)² − (E D(real) − E D(fake))  on batches ``[S,B,d]``.

        Written out by hand, for all of it is closed form: with s the slopes of the leaky ReLU, which are constant
        almost everywhere, ∇ₓD = W_x(s∘w), so the penalty needs no double backward pass. Returned are the gradients
        in the order of ``parameters`` and, ``[S]`` each, the mean of ‖∇D‖ and the gap E D(real) − E D(fake).
        """
        (weight, _), batch = self.hidden.weights, real.shape[1]
        x = torch.cat([real, fake, mixed], 1)
        inner = self.hidden(x, torch.cat([a, a, a], 1))
        slope = torch.where(inner > 0, 1.0, SLOPE)
        through = slope * self.out
        at_real, at_fake, at_mixed = through.split(batch, 1)
        activity = (inner * slope).unflatten(1, (3, batch)).mean(2)
        gradient = at_mixed @ weight.mT
        norm = gradient.square().sum(-1, keepdim=True).add(1e-12).sqrt()
        pull = gradient * (2 * penalty / batch * (norm - 1) / norm)
        errors = torch.cat([at_real / -batch, at_fake / batch, at_mixed], 1)
        difference = errors[:, :batch] + errors[:, batch : 2 * batch]
        push = (slope[:, 2 * batch :] * (pull @ weight)).sum(1)
        gradients = [
            torch.cat([real, fake, pull], 1).mT @ errors,
            a.mT @ difference,
            difference.sum(1, keepdim=True),
            (activity[:, 1] - activity[:, 0] + push)[:, None],
        ]
        gap = ((activity[:, 0] - activity[:, 1]) * self.out[:, 0]).sum(-1)
        return gradients, norm.mean((1, 2)), gap


class FeatureGenerator:
    """The VAE-GANs of E draws: trained on labelled items, then asked for pseudo pairs of the target classes.

    min over E, G, max over D, for each modality (flexclip.md, section 3.1; f-VAEGAN-D2, Xian et al., CVPR 2019):

        reconstruction·‖x − G(z, a)‖² + kl·KL(q(z|x,a) ‖ N(0, I)) + gan·(E D(x, a) − E D(x̃, a) − penalty·GP)

    x̃ is made both from the encoder's z and from z ~ N(0, I); GP = E(‖∇D‖ − 1)² between real and generated.
    """

    def __init__(self, method: FlexClip, tasks: Sequence[Task]) -> None:
        self.method, self.tasks = method, tasks
        draws = Draws(tasks, "flexclip: initial networks")
        sizes = Sizes(tasks[0].class_text.shape[1], min(tasks[0].class_text.shape), method.hidden, method.latent)
        self.encoder = Encoder(draws, sizes)
        basis = torch.stack([class_basis(task).T for task in tasks]).repeat_interleave(M, dim=0)
        self.generator = Generator(draws, sizes, basis if method.from_text else None)
        self.critic = Critic(draws, sizes)
        self.adversarial = method.generation != "vae"
        self.variational = method.generation != "gan"
        made = [*self.generator.parameters, *(self.encoder.parameters if self.variational else [])]
        self.optimiser = Adam(made, method.generator_rate, beta1=0.5)
        self.critic_optimiser = Adam(self.critic.parameters, method.generator_rate, beta1=0.5)
        self.watched: dict[str, Tensor] = {}

    def train(self) -> None:
        """All rounds; a round is ``critic_steps`` steps of the critic and one of encoder and generator."""
        method, draws = self.method, Draws(self.tasks, "flexclip: stage 1")
        labelled = [task.source + task.support for task in self.tasks]
        data = Stack(self.tasks, labelled, [stage_1_weights(pairs, self.tasks[0].shots) for pairs in labelled])
        steps = method.critic_steps if self.adversarial else 0
        for start in range(0, method.rounds, BLOCK):
            rounds = min(BLOCK, method.rounds - start)
            at = data.drawn(draws, rounds, steps + 1, method.batch)
            noise = draws.normal(rounds, steps + 2, M, method.batch, method.latent)
            mix = draws.uniform(rounds, steps, M, method.batch, 1)
            for r in range(rounds):
                positions = at[:, r].flatten(1)
                x = data.features(positions).split(method.batch, 1)
                a = data.conditions(positions).split(method.batch, 1)
                z = noise[:, r].transpose(0, 1).flatten(1, 2)
                for k in range(steps):
                    self._critic_step(x[k], a[k], z[k], mix[:, r, k].flatten(0, 1))
                self._generator_step(x[steps], a[steps], z[steps], z[steps + 1])

    @torch.no_grad()
    def pseudo_pairs(self, classes: Sequence[Tensor], purpose: str = "pseudo items") -> list[Pairs]:
        """``method.pseudo`` generated pairs of each of ``classes [k]``, one set a draw.

        Image and text of a pair are generated independently: a random pairing within the class.
        """
        method, draws = self.method, Draws(self.tasks, f"flexclip: {purpose}")
        label = torch.stack(list(classes)).repeat_interleave(method.pseudo, dim=1)
        codes = torch.stack([class_codes(task) for task in self.tasks])
        z = method.spread * draws.normal(M, label.shape[1], method.latent).flatten(0, 1)
        made = self.generator(z, conditions(codes, label)).unflatten(0, (-1, M))
        return [Pairs(image, text, y) for (image, text), y in zip(made, label, strict=True)]

    def diagnostics(self, pseudo: Sequence[Pairs]) -> list[dict[str, float]]:
        """What the last round looked like, for each draw, averaged over the modalities; how near the ``pseudo`` pairs
        of target classes, and such of source classes, are to real ones.
        """
        values = {name: value.unflatten(0, (-1, M)).mean(1) for name, value in self.watched.items()}
        watched = [{name: float(value[e]) for name, value in values.items()} for e in range(len(self.tasks))]
        known = self.pseudo_pairs([task.source_classes for task in self.tasks], "pseudo source items")
        made = [p + k for p, k in zip(pseudo, known, strict=True)]
        return [seen | fidelity(task, m) for seen, task, m in zip(watched, self.tasks, made, strict=True)]

    def _critic_step(self, x: Tensor, a: Tensor, noise: Tensor, mix: Tensor) -> None:
        with torch.no_grad():
            z = noise
            if self.variational:
                half = noise.shape[1] // 2
                mean, log_variance = self.encoder(x[:, :half], a[:, :half])
                z = torch.cat([mean + (0.5 * log_variance).exp() * noise[:, :half], noise[:, half:]], 1)
            fake = self.generator(z, a)
        mixed = mix * x + (1 - mix) * fake
        gradients, norm, gap = self.critic.gradients(x, fake, mixed, a, self.method.penalty)
        self.critic_optimiser.step(gradients)
        self.watched |= {"critic gradient norm": norm, "critic gap": gap}

    def _generator_step(self, x: Tensor, a: Tensor, noise: Tensor, prior: Tensor) -> None:
        method, z = self.method, prior
        loss = torch.zeros(len(x), device=x.device)
        if self.variational:
            mean, log_variance = self.encoder(x, a)
            z = mean + (0.5 * log_variance).exp() * noise
            kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1).mean(1)
            loss = loss + method.kl * kl
            self.watched["KL"] = kl.detach()
        if self.variational and self.adversarial:
            z, a = torch.cat([z, prior], 1), torch.cat([a, a], 1)
        made = self.generator(z, a)
        if self.variational:
            error = (made[:, : x.shape[1]] - x).square().sum(-1).mean(1)
            loss = loss + method.reconstruction * error
            self.watched["reconstruction error"] = error.detach()
        if self.adversarial:
            loss = loss - method.gan * self.critic(made, a).mean(1)
        self.optimiser.descend(loss)


def stage_1_weights(pairs: Pairs, shots: int) -> Tensor:
    """How often stage 1 draws each item: equally at X = 0, else classes equally, so that shots are not swamped."""
    return class_uniform(pairs.label) if shots else torch.ones(len(pairs))


def class_uniform(label: Tensor) -> Tensor:
    """Weights ``[n]`` that sum to 1 over each class."""
    return 1 / torch.bincount(label)[label].double()
