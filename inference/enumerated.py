"""The bound of equation 3 with the number of glimpses summed out.

Presence stops at the first 0, so that of all that K steps may say about it only K + 1 outcomes
exist. The steps are unrolled once, as if all were present, and with the sums of the first n layers
for canvases

    sum_n q(n) [log p(image | z_1..z_n) - KL_1..n] - KL(q(n) || p(n))

is the bound itself, one draw of the continuous choices aside: nothing discrete is left to score,
and no baseline is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from inference.air2d import Air2d, Context
from inference.distributions import unary_steps


class Enumerated(NamedTuple):
    """The bound of R images, outcome by outcome."""

    log_q: Tensor  # [R, K + 1] log q(n)
    value: Tensor  # [R, K + 1] nats: log p(n) + log p(image | z_1..n) - KL_1..n

    @property
    def bound(self) -> Tensor:
        """`[R]` nats."""
        return (self.log_q.exp() * (self.value - self.log_q)).sum(1)

    def mixed(self, share: float, *, temperature: float = 1.0) -> Tensor:
        """The bound as learning begins with it, `[R]` nats; with 0 and 1 it is the bound.

        Args:
            share: of the cases, in which the count is told at random. A glimpse that the network
                has given up goes on learning there, and so does a single one to explain an image
                on its own.
            temperature: what a nat of the count's entropy counts, at least 1. The best q(n) is
                proportional to exp(value / temperature), so that no count becomes so improbable
                that its probability has no gradient any more: it comes back when it is worth it.
        """
        warm = (self.log_q.exp() * (self.value - temperature * self.log_q)).sum(1)
        return (1 - share) * warm + share * self.value.mean(1)


def enumerated_bound(
    model: Air2d,
    context: Context,
    *,
    code_weight: float = 1.0,
    toll: float = 0.0,
    generator: torch.Generator | None = None,
) -> Enumerated:
    """The bound with one draw of windows and codes; differentiable.

    Args:
        model: network, decoder and prior.
        context: of R encoded images.
        code_weight: what a nat of a code's divergence counts; with anything but 1, what comes out
            is no bound. A decoder that has not learned to read a code yet does not miss it, and a
            code that costs its full price from the beginning is given up number by number.
        toll: nats that each glimpse costs besides, whatever it says. Where codes are cheap a digit
            is best drawn by two glimpses, one over the other, which later is hard to unlearn.
        generator: of random numbers.
    """
    image, prior = context.image, model.config.prior
    said = model.unroll(context, noise=generator)
    layers = model.decoder.layers(said.drawn_where, said.drawn_what)
    nothing = torch.zeros_like(layers[:, :1])
    canvases = torch.cat([nothing, layers.cumsum(1)], 1)
    explained = model.likelihood.log_prob(image[:, None], canvases)
    divergence = said.where.divergence(prior.where(image)).sum(-1)
    codes = said.what.divergence(prior.what(image)).sum(-1)  # [R, K]
    divergence = divergence + code_weight * codes + toll
    paid = torch.cat([divergence.new_zeros(len(image), 1), divergence.cumsum(1)], 1)
    outcomes = torch.arange(paid.shape[1], device=image.device)
    log_q = unary_steps(said.presence_logits[:, None], outcomes).sum(-1)
    log_p = prior.count_probabilities(model.config.steps).to(image).log()
    return Enumerated(log_q, log_p + explained - paid)
