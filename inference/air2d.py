"""AIR with a learned decoder (section 3.1, figure 3, appendix C), and DAIR (appendix D).

A step says whether there is one more glimpse, where, and what it shows. Steps are unrolled as if
all were present: the unary code stops at the first that is not, and what comes behind has no
weight in any bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from inference.decoder2d import GlimpseDecoder, perceptron
from inference.distributions import (
    Gaussian,
    at_least_probabilities,
    count_probabilities,
    unary_steps,
)
from inference.elbo import Trace
from inference.glimpse import read
from inference.glimpses import GlimpsePrior, Glimpses
from inference.likelihood import Likelihood

FIRST_PRESENCE = (
    1.5  # logit: at first there seems to be something everywhere, so that it is learned
)
FIRST_WHERE = 0.1  # standard deviation of a window, of the prior's: a first guess that holds still
LOG_STD_RANGE = (-8.0, 3.0)


class Air2dConfig(BaseModel):
    """The 2D model: its pictures, the sizes of its networks, its prior and its noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["glimpses"] = "glimpses"
    sees: Literal["image", "error"] = "image"  # error: what is not explained yet; that is DAIR
    side: int = Field(default=50, ge=8)  # px, of the canvas
    channels: Literal[1, 3] = 1
    window: int = Field(default=28, ge=4)  # px, of a glimpse
    steps: int = Field(default=3, ge=1)  # K
    what: int = Field(default=50, ge=1)  # D
    hidden: int = Field(default=256, ge=1)
    embedding: int = Field(default=256, ge=1)
    encoder: tuple[int, ...] = (512, 256)
    decoder: tuple[int, ...] = (256, 512)
    # Logarithm of a code's standard deviation at first: sharp, so that it is worth reading.
    first_code: float = Field(default=-1.0, ge=-8.0, le=3.0)
    std: float = Field(default=0.3, gt=0)  # of a pixel, grey levels of 1
    prior: GlimpsePrior = GlimpsePrior()


class Context(NamedTuple):
    """What is computed once an image and read by every step."""

    image: Tensor  # [R, channels, side, side]
    summary: Tensor  # [R, 4 hidden], what the recurrence is told; DAIR: nothing, [R, 0]

    def select(self, rows: Tensor) -> Context:
        """Of images `rows` `[R]`, any of them any number of times."""
        return Context(self.image[rows], self.summary[rows])


class State(NamedTuple):
    """What a step hands on to the next."""

    hidden: Tensor  # [R, hidden]
    cell: Tensor  # [R, hidden]
    where: Tensor  # [R, 3]
    what: Tensor  # [R, D]
    canvas: Tensor  # [R, channels, side, side]; no gradient


class Step(NamedTuple):
    """What a step says."""

    presence_logit: Tensor  # [R]
    where: Gaussian  # [R, 3]
    what: Gaussian  # [R, D], given the window
    hidden: Tensor  # [R, hidden], what it knew before it said anything


class Unrolled(NamedTuple):
    """All steps, and one draw of what each says."""

    presence_logits: Tensor  # [R, K]
    where: Gaussian  # [R, K, 3]
    what: Gaussian  # [R, K, D]
    hidden: Tensor  # [R, K, hidden]
    drawn_where: Tensor  # [R, K, 3], differentiable in the parameters
    drawn_what: Tensor  # [R, K, D]


@dataclass(frozen=True)
class Estimate2d:
    """What the network says of B images, at the centre of every density."""

    count_probabilities: Tensor  # [B, K + 1]
    presence_probability: Tensor  # [B, K] that there are at least k + 1 glimpses
    where: Gaussian  # [B, K, 3]
    what: Gaussian  # [B, K, D]
    layers: Tensor  # [B, K, channels, side, side], each glimpse alone

    @property
    def count(self) -> Tensor:
        """The most probable number of glimpses, `[B]`."""
        return self.count_probabilities.argmax(1)

    @property
    def picture(self) -> Tensor:
        """What as many glimpses as are most probable explain, `[B, channels, side, side]`."""
        steps = self.layers.shape[1]
        shown = torch.arange(steps, device=self.layers.device) < self.count[:, None]
        return (self.layers * shown[..., None, None, None]).sum(1)


class Air2d(nn.Module):
    """The model of images and the network that inverts it.

    Args:
        config: pictures, sizes, prior and noise.
    """

    def __init__(self, config: Air2dConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or Air2dConfig()
        pixels = c.channels * c.window * c.window
        self.likelihood = Likelihood(c.std)
        self.decoder = GlimpseDecoder(c.what, c.decoder, c.channels, c.window, c.side)
        self.embed = _embedding(c)
        # AIR remembers by a recurrence; DAIR has the canvas for that.
        gates = 4 * c.hidden if c.sees == "image" else c.hidden
        self.tell = nn.Linear(c.embedding, gates)
        if c.sees == "image":
            self.recall = nn.Linear(c.hidden + 3 + c.what, gates, bias=False)
        self.head = nn.Linear(c.hidden, 7)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.attend = nn.Linear(pixels, c.encoder[0])
        self.expect = nn.Linear(c.hidden, c.encoder[0], bias=False)
        self.describe = perceptron(c.encoder[0], c.encoder[1:], 2 * c.what)

    def encode(self, image: Tensor) -> Context:
        """Reads images `[B, channels, side, side]` in [0, 1] once.

        Raises:
            ValueError: the images have another shape.
        """
        c = self.config
        expected = (c.channels, c.side, c.side)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"images have shape {tuple(image.shape[1:])}, expected {expected}")
        if c.sees == "error":
            return Context(image, image.new_empty(len(image), 0))
        return Context(image, self.tell(self.embed(image)).to(image.dtype))

    def start(self, context: Context) -> State:
        """The state before the first step: nothing remembered, nothing explained."""
        c, image = self.config, context.image
        none = image.new_zeros(len(image), c.hidden)
        where = image.new_zeros(len(image), 3)
        return State(
            none, none, where, image.new_zeros(len(image), c.what), torch.zeros_like(image)
        )

    def step(
        self, context: Context, state: State, *, noise: torch.Generator | Literal["none"] | None
    ) -> tuple[Step, State]:
        """One step: what it says, and the state after one draw of that.

        Args:
            context: of R images.
            state: before the step.
            noise: generator of the draw, torch's own when not given; `none` takes the means.
        """
        hidden, cell = self._recur(context, state)
        logit, mean, log_std = self.head(hidden).to(hidden.dtype).split([1, 3, 3], dim=1)
        prior = self.config.prior.where(mean)
        spread = FIRST_WHERE * log_std.clamp(*LOG_STD_RANGE).exp()
        where = Gaussian(prior.mean + prior.std * mean, prior.std * spread)
        drawn_where = _draw(where, noise)
        seen = context.image if self.config.sees == "image" else context.image - state.canvas
        glimpse = read(seen, drawn_where, self.config.window)
        noticed = torch.relu(self.attend(glimpse.flatten(1)) + self.expect(hidden))
        mean, log_std = self.describe(noticed).to(hidden.dtype).chunk(2, dim=1)
        what = Gaussian(mean, (log_std + self.config.first_code).clamp(*LOG_STD_RANGE).exp())
        drawn_what = _draw(what, noise)
        canvas = state.canvas
        if self.config.sees == "error":
            with torch.no_grad():  # an observation: what was said is not to blame for what is seen
                canvas = (
                    canvas + self.decoder.layers(drawn_where[:, None], drawn_what[:, None])[:, 0]
                )
        return (
            Step(logit[:, 0] + FIRST_PRESENCE, where, what, hidden),
            State(hidden, cell, drawn_where, drawn_what, canvas),
        )

    def unroll(
        self, context: Context, *, noise: torch.Generator | Literal["none"] | None = None
    ) -> Unrolled:
        """All K steps as if all were present; see `step`."""
        state = self.start(context)
        steps: list[Step] = []
        wheres: list[Tensor] = []
        whats: list[Tensor] = []
        for _ in range(self.config.steps):
            step, state = self.step(context, state, noise=noise)
            steps.append(step)
            wheres.append(state.where)
            whats.append(state.what)
        logits, where, what, hidden = zip(*steps, strict=True)
        return Unrolled(
            torch.stack(logits, 1),
            _stack(where),
            _stack(what),
            torch.stack(hidden, 1),
            torch.stack(wheres, 1),
            torch.stack(whats, 1),
        )

    def trace(
        self, context: Context, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Glimpses]:
        """Draws glimpses from q, differentiably; see `InferenceNetwork.trace`."""
        rows = torch.arange(len(context.image), device=context.image.device)
        said = self.unroll(context.select(rows.repeat_interleave(samples)), noise=generator)
        logits = said.presence_logits
        uniform = torch.rand(logits.shape, device=logits.device, generator=generator)
        presence = (uniform < torch.sigmoid(logits)).cumprod(1).bool()
        unary = unary_steps(logits, presence.sum(1))
        density = said.where.log_prob(said.drawn_where).sum(-1)
        density = density + said.what.log_prob(said.drawn_what).sum(-1)
        return Trace(
            Glimpses(presence, said.drawn_where, said.drawn_what),
            unary + density.where(presence, 0.0),
            logits.new_zeros(len(logits)),
            unary,
            said.hidden.detach(),
        )

    @torch.no_grad()
    def infer(self, image: Tensor) -> Estimate2d:
        """What images `[B, channels, side, side]` show, at the centre of every density."""
        said = self.unroll(self.encode(image), noise="none")
        return Estimate2d(
            count_probabilities(said.presence_logits),
            at_least_probabilities(said.presence_logits),
            said.where,
            said.what,
            self.decoder.layers(said.where.mean, said.what.mean),
        )

    @torch.no_grad()
    def imagine(self, counts: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images `[R, channels, side, side]` that the model makes up (noise left out).

        Args:
            counts: `[R]` int64, of glimpses; `GlimpsePrior.sample_counts` draws likely ones.
            generator: of random numbers.
        """
        c = self.config
        latents = c.prior.sample(counts, c.steps, c.what, generator=generator)
        return self.decoder(latents.to(self.head.weight.device))

    def _recur(self, context: Context, state: State) -> tuple[Tensor, Tensor]:
        """What the step knows, and what it keeps to itself: `[R, hidden]` each."""
        if self.config.sees == "error":
            error = context.image - state.canvas
            return torch.relu(self.tell(self.embed(error)).to(error.dtype)), state.cell
        # A long short-term memory whose input's part is computed once for all steps.
        prior = self.config.prior.where(state.where)
        before = (state.where - prior.mean) / prior.std
        remembered = self.recall(torch.cat([state.hidden, before, state.what], dim=1))
        remembered = remembered.to(state.hidden.dtype)
        enter, keep, value, leave = (context.summary + remembered).chunk(4, dim=1)
        cell = torch.sigmoid(keep + 1) * state.cell + torch.sigmoid(enter) * torch.tanh(value)
        return torch.sigmoid(leave) * torch.tanh(cell), cell


def _embedding(c: Air2dConfig) -> nn.Sequential:
    """The whole image as `embedding` features."""
    reduced = (c.side + 3) // 4
    return nn.Sequential(
        nn.Conv2d(c.channels, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * reduced * reduced, c.embedding),
        nn.ReLU(),
    )


def _draw(density: Gaussian, noise: torch.Generator | Literal["none"] | None) -> Tensor:
    return density.mean if noise == "none" else density.sample(noise)


def _stack(densities: tuple[Gaussian, ...]) -> Gaussian:
    return Gaussian(*(torch.stack(values, 1) for values in zip(*densities, strict=True)))
