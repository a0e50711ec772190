"""What the 2D model says of an image, and how probable that is beforehand (figure 3).

An image shows up to K glimpses, each a small picture somewhere on the canvas. What a glimpse looks
like is a code, where it is a window: the names z_what, z_where and z_pres are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from inference.distributions import Gaussian
from inference.prior import log_presence


@dataclass(frozen=True)
class Glimpses:
    """The latent variables of R images; present glimpses come first (unary code)."""

    presence: Tensor  # [R, K] bool
    where: Tensor  # [R, K, 3]: log side, x, y of the window; see `inference.glimpse`
    what: Tensor  # [R, K, D] codes

    @property
    def count(self) -> Tensor:
        """`[R]` int64."""
        return self.presence.sum(-1)

    def to(self, device: torch.device | str) -> Glimpses:
        """The same on `device`."""
        return Glimpses(*(value.to(device) for value in (self.presence, self.where, self.what)))


class GlimpsePrior(BaseModel):
    """p(n), p(z_where) and p(z_what), the same for every step.

    The number of glimpses is geometric up to K, which favours few (appendix C); the logarithm of a
    window's side, its place and the code are Gaussian.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(default=0.01, gt=0)  # p(n + 1) / p(n)
    side: float = Field(default=0.33, gt=0)  # median, as a share of the canvas's side
    side_spread: float = Field(default=0.1, gt=0)  # standard deviation of its logarithm
    shift: float = Field(default=0.35, gt=0)  # standard deviation of x and y, half canvases

    def count_probabilities(self, steps: int) -> Tensor:
        """p(n) for n = 0 to K: `[K + 1]`."""
        weights = self.ratio ** torch.arange(steps + 1, dtype=torch.float64)
        return (weights / weights.sum()).float()

    def where(self, like: Tensor) -> Gaussian:
        """The density of windows `[3]`, on the device of `like`."""
        mean = like.new_tensor([math.log(self.side), 0.0, 0.0])
        return Gaussian(mean, like.new_tensor([self.side_spread, self.shift, self.shift]))

    def what(self, like: Tensor) -> Gaussian:
        """The density of each number of a code, on the device of `like`."""
        return Gaussian(like.new_zeros(()), like.new_ones(()))

    def log_steps(self, latents: Glimpses) -> Tensor:
        """Log density of all that each step says: `[R, K]`, 0 behind the end."""
        where, what = latents.where, latents.what
        density = self.where(where).log_prob(where).sum(-1) + self.what(what).log_prob(what).sum(-1)
        probabilities = self.count_probabilities(where.shape[1]).to(where)
        return log_presence(probabilities, latents.count) + density.where(latents.presence, 0.0)

    def log_once(self, latents: Glimpses) -> Tensor:
        """Nothing is said once for the image: `[R]` zeros."""
        return latents.where.new_zeros(len(latents.where))

    def sample_counts(
        self, n: int, steps: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws how many glimpses each of `n` images shows, of up to `steps`."""
        probabilities = self.count_probabilities(steps)
        return torch.multinomial(probabilities, n, replacement=True, generator=generator)

    def sample(
        self, counts: Tensor, steps: int, what: int, *, generator: torch.Generator | None = None
    ) -> Glimpses:
        """Draws the latent variables of images that show `counts` `[R]` glimpses.

        Args:
            counts: at most `steps` each.
            steps: K.
            what: D, numbers of a code.
            generator: of random numbers.
        """
        n, where = len(counts), self.where(torch.empty(0))
        return Glimpses(
            torch.arange(steps) < counts[:, None],
            Gaussian(*(value.expand(n, steps, 3) for value in where)).sample(generator),
            torch.randn(n, steps, what, generator=generator),
        )
