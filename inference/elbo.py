"""The evidence lower bound (equations 3 and 5): a pure function of trace, image and decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor

from inference.likelihood import Likelihood

Z = TypeVar("Z")
Z_contra = TypeVar("Z_contra", contravariant=True)


class Trace(NamedTuple, Generic[Z]):
    """What a posterior drew for each of B images, S times, and how probable it thought that.

    The R = B * S draws of one image lie side by side; T steps each. Continuous choices carry the
    path-wise derivative of appendix A.1, discrete ones their log probability for that of A.2.
    """

    latents: Z  # R of them, as the decoder takes them
    log_q: Tensor  # [R, T] log density of all that each step says; 0 behind the end
    log_q_once: Tensor  # [R] of what is said once for the image: the camera
    score: Tensor  # [R, T] log probability of each step's discrete choices; 0 behind the end
    hidden: Tensor  # [R, T, D] what each step knew before it chose; no gradient


class Prior(Protocol[Z_contra]):
    """p(z), step by step."""

    def log_steps(self, latents: Z_contra, /) -> Tensor:
        """Log density of all that each step says: `[R, T]`, 0 behind the end."""
        ...

    def log_once(self, latents: Z_contra, /) -> Tensor:
        """Log density of what is said once for the image: `[R]`."""
        ...


class Terms(NamedTuple):
    """The parts of l = log p(x, z) - log q(z | x), equation 5, of R = B * S draws."""

    likelihood: Tensor  # [R] log p(x | z)
    steps: Tensor  # [R, T] log p - log q of what each step says
    once: Tensor  # [R] log p - log q of what is said once for the image

    @property
    def total(self) -> Tensor:
        """`[R]` nats; the mean over draws estimates the bound of equation 3."""
        return self.likelihood + self.steps.sum(1) + self.once

    @property
    def downstream(self) -> Tensor:
        """`[R, T]`: of each step, the terms that its choices can still change.

        The steps before it do not depend on them: left out of the learning signal, their terms
        take their variance with them.
        """
        return self.likelihood[:, None] + self.steps.flip(1).cumsum(1).flip(1)


def elbo_terms(
    trace: Trace[Z],
    image: Tensor,
    decoder: Callable[[Z], Tensor],
    likelihood: Likelihood,
    prior: Prior[Z],
) -> Terms:
    """The terms of the bound for each draw; differentiable wherever trace and decoder are.

    Args:
        trace: S draws from q(z | x) for each image.
        image: `[B, channels, H, W]` in [0, 1].
        decoder: pictures `[R, channels, H, W]` of the latents: the renderer, or a learned one.
        likelihood: of an image given a picture.
        prior: of the latents.
    """
    picture = decoder(trace.latents)
    samples = len(picture) // len(image)
    explained = likelihood.log_prob(image[:, None], picture.unflatten(0, (-1, samples)))
    return Terms(
        explained.flatten(),
        prior.log_steps(trace.latents) - trace.log_q,
        prior.log_once(trace.latents) - trace.log_q_once,
    )
