"""CADA-VAE: aligned variational auto-encoders of images, texts and class texts, and a classifier of their latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import ClassVar, Literal

import torch
from torch import Tensor

from xshot_bench.methods._deep import Batch, DeepMethod, Learnt, Network, Terms, entropy, learnt_of, taken, total
from xshot_bench.methods._linear import Standard
from xshot_bench.methods._stacking import Draws
from xshot_bench.methods._training import Adam
from xshot_bench.methods.base import MODALITIES, Declined, Task


class CadaVae(DeepMethod):
    """Cross- and distribution-aligned VAEs (Schönfeld et al., CVPR 2019), with a third VAE: images, texts, class texts.

    For views m, n of a labelled pair: (μ, σ)_m = E_m(x_m), z_m = μ_m + σ_m ε, ε ~ N(0, I), and D_n decodes into view n.

        reconstruction·Σ_m |x_m − D_m(z_m)|₁ + kl·w₁ Σ_m KL(N(μ_m, σ_m²) ‖ N(0, I))
            + cross·w₂ Σ_m≠n |x_n − D_n(z_m)|₁ + distance·w₃ Σ_m<n √(‖μ_m − μ_n‖² + ‖σ_m − σ_n‖²)

    The weights w rise from 0 to 1 over published parts of the training: w₁ over 0–.93, w₂ over .21–.75, w₃ over
    .06–.22. The paper has two views, image and attributes of the class, for classification; to retrieve, the texts are
    a third, and the class text stands for the attributes. Where there are no class texts, images and texts are left.

    Published: latent length 64, one hidden layer, kl .25, cross 2.37, distance 8.13, Adam (AMSGrad) at 1.5e-4, batches
    of 50, 100 epochs; its code draws one ε for all of z and takes σ = exp(log σ²), both of which we take for slips.
    Ours: smaller layers, standardised features, balanced batches, fixed steps.

    The softmax classifier is learnt afterwards, as published, on sampled latents of the candidate classes: of their
    class texts and, from the first shot on, of their labelled images and texts; so it works at X = 0 too. Items are
    compared by its posteriors of μ; the switch ``cosine`` compares the μ themselves.

    classifier_steps, classifier_rate: of the softmax classifier.
    """

    latent: int = 64
    hidden: int = 256
    reconstruction: float = 1.0
    kl: float = 0.25
    cross: float = 2.37
    distance: float = 8.13
    steps: int = 150
    classifier_steps: int = 100
    classifier_rate: float = 1e-2
    batch: int = 48
    rate: float = 1e-3
    beta1: float = 0.9
    score_by: Literal["cosine", "posterior"] = "posterior"

    ablations: ClassVar = {
        "nokl": {"kl": 0.0},
        "nocross": {"cross": 0.0},
        "nodistance": {"distance": 0.0},
        "cosine": {"score_by": "cosine"},
    }
    components: ClassVar = ("nokl", "nocross", "nodistance")
    search: ClassVar = {
        "steps": (75, 150, 300),
        "rate": (3e-4, 1e-3),
        "kl": (0.025, 0.25),
        "cross": (0.5, 2.37),
        "distance": (0.8, 8.13),
    }

    def check(self, task: Task) -> None:
        if not len(task.labelled):
            raise Declined("needs labelled items to learn from; there are none")
        if self.score_by == "posterior" and not task.shots and not task.class_text.shape[1]:
            raise Declined("a classifier of the target classes needs their texts or labelled items; there are neither")

    def learn(self, data: Batch, tasks: Sequence[Task]) -> Sequence[Learnt]:
        draws = Draws(tasks, "cada_vae")
        codes = data.class_text
        if codes.shape[2]:
            codes = torch.stack([Standard.of(text)(text) for text in codes])
        width = {name: x.shape[2] for name, x in views(data, codes).items()}
        encoder = {name: Network(draws, [d, self.hidden, 2 * self.latent]) for name, d in width.items()}
        decoder = {name: Network(draws, [self.latent, self.hidden, d]) for name, d in width.items()}
        learnt = [p for one in (*encoder.values(), *decoder.values()) for p in one.parameters]

        def terms(part: Batch, share: float) -> Terms:
            x = views(part, codes)
            posterior = {name: encoder[name](x[name]).chunk(2, 2) for name in x}
            z = {name: sampled(draws, *q) for name, q in posterior.items()}
            pairs = list(permutations(x, 2))
            return {
                "reconstruction": total(absolute(decoder[name](z[name]), x[name]) for name in x),
                "kl": rising(share, 0, 0.93) * total(divergence(*q) for q in posterior.values()),
                "cross": rising(share, 0.21, 0.75) * total(absolute(decoder[b](z[a]), x[b]) for a, b in pairs),
                "distance": rising(share, 0.06, 0.22)
                * total(wasserstein(posterior[a], posterior[b]) for a, b in combinations(x, 2)),
            }

        watched = self.descend(data, draws, learnt, terms)
        classifier = self._classifier(data, codes, tasks, encoder)
        return learnt_of({m: encoder[m].first(self.latent) for m in MODALITIES}, classifier, watched)

    def _classifier(
        self, data: Batch, codes: Tensor, tasks: Sequence[Task], encoder: Mapping[str, Network]
    ) -> Network | None:
        """Learnt from latents of the candidate classes; None where nothing is known of the target classes."""
        if not tasks[0].shots and not codes.shape[2]:
            return None
        draws = Draws(tasks, "cada_vae: classifier")
        network = Network(draws, [self.latent, codes.shape[1]])
        candidates = torch.stack([task.candidates for task in tasks])
        of_candidates = (data.label[:, :, None] == candidates[:, None]).any(2)
        known = data.rows(torch.stack([torch.nonzero(these).flatten() for these in of_candidates]))
        optimiser = Adam(network.parameters, self.classifier_rate)
        for _ in range(self.classifier_steps):
            x: dict[str, Tensor] = {}
            label: dict[str, Tensor] = {}
            if known.label.shape[1]:
                part = known.drawn(draws, self.batch)
                x |= {m: part[m] for m in MODALITIES}
                label |= dict.fromkeys(MODALITIES, part.label)
            if codes.shape[2]:
                label["class"] = candidates.gather(1, draws.below(candidates.shape[1], self.batch))
                x["class"] = taken(codes, label["class"])
            with torch.no_grad():
                z = torch.cat([sampled(draws, *encoder[name](x[name]).chunk(2, 2)) for name in x], 1)
            optimiser.descend(entropy(network(z), torch.cat(list(label.values()), 1)))
        return network


def views(pairs: Batch, codes: Tensor) -> dict[str, Tensor]:
    """The views of labelled pairs, ``[E,n,d]`` each: image, text, and their class's row of ``codes [E,C,d]``."""
    found = {"image": pairs.image, "text": pairs.text}
    return found | {"class": pairs.of_classes(codes)} if codes.shape[2] else found


def sampled(draws: Draws, mean: Tensor, log_variance: Tensor) -> Tensor:
    return mean + (log_variance / 2).exp() * draws.normal(*mean.shape[1:])


def absolute(decoded: Tensor, x: Tensor) -> Tensor:
    """The mean over items of the L1 distance, ``[E]``."""
    return (decoded - x).abs().sum(2).mean(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The mean over items of KL(N(μ, σ²) ‖ N(0, I)), ``[E]``."""
    return (mean.square() + log_variance.exp() - log_variance - 1).sum(2).mean(1) / 2


def wasserstein(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The mean over items of the 2-Wasserstein distance of two normal distributions (μ, log σ²), ``[E]``."""
    apart = torch.cat([a[0] - b[0], (a[1] / 2).exp() - (b[1] / 2).exp()], 2)
    return apart.norm(dim=2).mean(1)


def rising(share: float, start: float, end: float) -> float:
    """From 0 at ``start`` to 1 at ``end``."""
    return min(max((share - start) / (end - start), 0.0), 1.0)
