"""DRAW: an image is drawn in many small strokes of a brush (Gregor et al., 2015; appendix F).

Every step looks at a window of the image and of what is still wrong with the picture, says a few
numbers about it, and adds a patch to the canvas somewhere. Windows are the spatial transformer's,
shifted and scaled, as AIR's are; there is a fixed number of steps, and none of them is an object.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from inference.air2d import LOG_STD_RANGE
from inference.distributions import Gaussian
from inference.glimpse import read, write
from inference.rival import Noise, Rival, RivalConfig

# Sides of windows as shares of the canvas's: the smallest and the largest.
SIDES = (0.15, 1.2)
FIRST_WEIGHT = 0.01  # standard deviation of the weights that say where: at first the middle
BLANK = -3.0  # first logit of the canvas: nearly black, and not so black that nothing is learned


class DrawConfig(RivalConfig):
    """The sizes of DRAW's networks; those of appendix F."""

    kind: Literal["draw"] = "draw"
    window: int = Field(default=16, ge=2)  # px, of what is read and written
    steps: int = Field(default=40, ge=1)  # T
    what: int = Field(default=4, ge=1)  # numbers that a step says
    hidden: int = Field(default=400, ge=1)


class Brush(NamedTuple):
    """What the decoder hands on to the next step."""

    hidden: Tensor  # [B, hidden]
    cell: Tensor  # [B, hidden]
    canvas: Tensor  # [B, channels, side, side] logits


class Draw(Rival):
    """The model of images and the network that inverts it.

    Args:
        config: images, noise and sizes.
    """

    config: DrawConfig

    def __init__(self, config: DrawConfig | None = None) -> None:
        self.config = c = config or DrawConfig()
        super().__init__(c)
        patch = c.channels * c.window * c.window
        self.first = nn.Parameter(torch.full((c.channels, c.side, c.side), BLANK))
        self.encoder = nn.Linear(2 * patch + 2 * c.hidden, 4 * c.hidden)
        self.say = nn.Linear(c.hidden, 2 * c.what)
        self.decoder = nn.Linear(c.what + c.hidden, 4 * c.hidden)
        # At first it looks at all there is, and draws in the middle.
        self.look = _where(c.hidden, first=1.0)
        self.place = _where(c.hidden, first=0.0)
        self.paint = nn.Linear(c.hidden, patch)

    def explain(self, image: Tensor, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """See `Rival.explain`."""
        c = self.config
        brush = self._start(image)
        hidden = cell = brush.hidden
        prior = Gaussian(image.new_zeros(()), image.new_ones(()))
        divergence = image.new_zeros(len(image))
        for _ in range(c.steps):
            error = image - torch.sigmoid(brush.canvas)
            window = _window(self.look(brush.hidden).to(cell.dtype))
            seen = read(torch.cat([image, error], 1), window, c.window)
            told = torch.cat([seen.flatten(1), brush.hidden, hidden], 1)
            hidden, cell = _remember(self.encoder(told), cell)
            mean, log_std = self.say(hidden).to(cell.dtype).chunk(2, dim=1)
            said = Gaussian(mean, log_std.clamp(*LOG_STD_RANGE).exp())
            divergence = divergence + said.divergence(prior).sum(1)
            brush = self._stroke(brush, said.mean if noise == "none" else said.sample(noise))
        return torch.sigmoid(brush.canvas), divergence

    @torch.no_grad()
    def imagine(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """See `Rival.imagine`."""
        c = self.config
        brush = self._start(self.first.expand(n, -1, -1, -1))
        for _ in range(c.steps):
            codes = torch.empty_like(brush.hidden[:, : c.what]).normal_(generator=generator)
            brush = self._stroke(brush, codes)
        return torch.sigmoid(brush.canvas)

    def _start(self, image: Tensor) -> Brush:
        none = image.new_zeros(len(image), self.config.hidden)
        return Brush(none, none, self.first.expand(len(image), -1, -1, -1))

    def _stroke(self, brush: Brush, codes: Tensor) -> Brush:
        """Adds a patch to the canvas, as codes `[B, what]` say."""
        c = self.config
        hidden, cell = _remember(self.decoder(torch.cat([codes, brush.hidden], 1)), brush.cell)
        patch = self.paint(hidden).unflatten(1, (c.channels, c.window, c.window))
        added = write(patch, _window(self.place(hidden).to(cell.dtype)), c.side)
        return Brush(hidden, cell, brush.canvas + added.to(cell.dtype))


def _remember(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """A long short-term memory: gates `[B, 4 hidden]` to what is known and what is kept."""
    enter, keep, value, leave = gates.to(cell.dtype).chunk(4, dim=1)
    cell = torch.sigmoid(keep + 1) * cell + torch.sigmoid(enter) * torch.tanh(value)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _where(hidden: int, *, first: float) -> nn.Linear:
    """What says where a window is, as `_window` takes it; `first` is how large it is at first."""
    layer = nn.Linear(hidden, 3)
    nn.init.normal_(layer.weight, std=FIRST_WEIGHT)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.bias[0] = first
    return layer


def _window(said: Tensor) -> Tensor:
    """Windows `[B, 3]` (see `inference.glimpse`) that never leave the canvas, and never vanish."""
    low, high = (math.log(side) for side in SIDES)
    middle, reach = (low + high) / 2, (high - low) / 2
    side, place = torch.tanh(said).split([1, 2], dim=1)
    return torch.cat([middle + reach * side, place], 1)
