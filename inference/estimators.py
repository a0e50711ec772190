"""Gradient estimators for bounds with discrete choices, one signature for all.

Path-wise derivatives of continuous choices (appendix A.1) flow through the terms themselves.
What estimators differ in is how discrete choices learn (appendix A.2): each returns a surrogate
loss whose gradient is an unbiased estimate of that of the bound, with the sign turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from inference.elbo import Prior, Terms, Trace, elbo_terms
from inference.likelihood import Likelihood

ContextT = TypeVar("ContextT")
Z = TypeVar("Z")


class Surrogate(NamedTuple):
    """A loss to differentiate, and the bound that it stands for."""

    loss: Tensor  # [] nats an image; its value has no meaning, only its gradient
    bound: Tensor  # [B] nats


Estimator = Callable[[Terms, Tensor, int, Tensor | None], Surrogate]
"""(terms of R = B * S draws, their scores `[R, T]`, S, baselines `[R, T]` or none) -> Surrogate"""


def nvil(terms: Terms, score: Tensor, samples: int, baseline: Tensor | None = None) -> Surrogate:
    """The plain bound with likelihood ratios and learned baselines (Mnih & Gregor, 2014).

    The paper's estimator. Each step's signal is what it can still change, less what `baseline`
    expected of it; the baseline learns by its squared error. Without a baseline, the raw ratio of
    equation 7.

    Args:
        terms: of the bound.
        score: `[R, T]` log probability of the steps' discrete choices.
        samples: S.
        baseline: `[R, T]` expected signals, functions of the image and the steps before.
    """
    signal = terms.downstream.detach()
    loss = -(terms.total + (score * (signal - _known(baseline, signal))).sum(1)).mean()
    if baseline is not None:
        # In units of its own size: the baseline's rate does not depend on the likelihood's.
        scale = signal.std().clamp_min(1.0) if signal.numel() > 1 else signal.new_tensor(1.0)
        used = score.detach() != 0
        error = ((baseline - signal) / scale).square().where(used, 0.0)
        loss = loss + 0.5 * error.sum() / len(signal)
    return Surrogate(loss, terms.total.detach().unflatten(0, (-1, samples)).mean(1))


def rloo(terms: Terms, score: Tensor, samples: int, baseline: Tensor | None = None) -> Surrogate:
    """The plain bound, each draw's baseline being the mean of the image's other draws.

    REINFORCE leave-one-out (Kool et al., 2019). What a learned `baseline` knows is taken off
    before.

    Raises:
        ValueError: a single draw has no others.
    """
    if samples < 2:
        raise ValueError("rloo compares draws of one image with each other: take 2 samples or more")
    signal = terms.downstream.detach()
    signal = (signal - _known(baseline, signal)).unflatten(0, (-1, samples))
    others = (signal.sum(1, keepdim=True) - signal) / (samples - 1)
    advantage = (signal - others).flatten(0, 1)
    loss = -(terms.total + (score * advantage).sum(1)).mean()
    return Surrogate(loss, terms.total.detach().unflatten(0, (-1, samples)).mean(1))


def vimco(terms: Terms, score: Tensor, samples: int, baseline: Tensor | None = None) -> Surrogate:
    """The importance-weighted bound log 1/S sum exp l (Burda et al., 2016), signals from the rest.

    Mnih & Rezende, 2016: a draw's baseline is the bound with its own weight replaced by the
    geometric mean of the others'. `baseline` is not used.

    Raises:
        ValueError: a single draw has no others.
    """
    if samples < 2:
        raise ValueError(
            "vimco compares draws of one image with each other: take 2 samples or more"
        )
    total = terms.total.unflatten(0, (-1, samples))  # [B, S]
    bound = total.logsumexp(1) - math.log(samples)
    fixed = total.detach()
    others = (fixed.sum(1, keepdim=True) - fixed) / (samples - 1)
    replaced = fixed[:, None].expand(-1, samples, -1).clone()
    replaced.diagonal(dim1=1, dim2=2).copy_(others)
    without = replaced.logsumexp(2) - math.log(samples)  # [B, S]
    advantage = bound.detach()[:, None] - without
    loss = -(bound + (score.sum(1).unflatten(0, (-1, samples)) * advantage).sum(1)).mean()
    return Surrogate(loss, bound.detach())


ESTIMATORS: dict[str, Estimator] = {"nvil": nvil, "rloo": rloo, "vimco": vimco}


class Baseline(nn.Module):
    """What each step may expect, from what it knew before it chose (appendix A.2).

    A running mean and deviation of the signal are taken off, so that the network learns numbers of
    order one whatever the likelihood's scale.

    Args:
        hidden: D, what a step knows.
        width: units of its hidden layer.
    """

    mean: Tensor
    deviation: Tensor
    seen: Tensor

    def __init__(self, hidden: int, width: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(hidden, width), nn.SiLU(), nn.Linear(width, 1))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, hidden: Tensor) -> Tensor:
        """Expected signals `[R, T]` nats, from `[R, T, D]`."""
        # A copy: the next update must not reach into a graph that was not gone back through.
        return self.mean + self.deviation.clone() * self.body(hidden)[..., 0]

    @torch.no_grad()
    def update(self, signal: Tensor, rate: float = 0.05) -> None:
        """Moves the running mean and deviation towards those of signals `[R, T]`."""
        self.seen += 1
        rate = max(rate, 1 / int(self.seen))  # at first a plain average
        self.mean.lerp_(signal.mean(), rate)
        self.deviation.lerp_(signal.std().clamp_min(1.0), rate)


class Recogniser(Protocol[ContextT, Z]):
    """A network q(z | image) of which the bound needs draws, whatever z is."""

    def encode(self, image: Tensor, /) -> ContextT:
        """Reads images once."""
        ...

    def trace(
        self, context: ContextT, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Z]:
        """Draws from q, differentiably, step by step; see `InferenceNetwork.trace`."""
        ...


def bound_loss(
    posterior: Recogniser[ContextT, Z],
    image: Tensor,
    target: Tensor,
    decoder: Callable[[Z], Tensor],
    likelihood: Likelihood,
    prior: Prior[Z],
    estimator: Estimator,
    *,
    samples: int,
    baseline: Baseline | None = None,
    generator: torch.Generator | None = None,
) -> Surrogate:
    """The bound of a batch of images, by draws from the posterior.

    Args:
        posterior: the network that learns.
        image: `[B, channels, H, W]` in [0, 1], as the network sees them.
        target: the same images as the decoder draws them, smaller perhaps.
        decoder: draws what the network says, differentiably.
        likelihood: of an image given a picture.
        prior: of what the network says.
        estimator: how discrete choices learn.
        samples: S, draws an image.
        baseline: learns what each step may expect; none where the estimator takes none.
        generator: of random numbers.
    """
    context = posterior.encode(image)
    with torch.autocast(image.device.type, enabled=False):
        trace = posterior.trace(context, samples, generator=generator)
        terms = elbo_terms(trace, target, decoder, likelihood, prior)
        expected = None
        if baseline is not None:
            baseline.update(terms.downstream.detach())
            expected = baseline(trace.hidden)
        return estimator(terms, trace.score, samples, expected)


def _known(baseline: Tensor | None, signal: Tensor) -> Tensor:
    return torch.zeros_like(signal) if baseline is None else baseline.detach()
