"""The recurrent, variable-length posterior q(scene | image) of section 2.1 and appendix H.4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from inference.anchors import table_anchors
from inference.cell import Attention, Cell, Objects, ProposalHead, Proposals
from inference.distributions import (
    PlaneGaussian,
    VonMises,
    at_least_probabilities,
    canonical_yaw,
    count_probabilities,
    unary_steps,
    wrap,
)
from inference.elbo import Trace
from inference.encoder import STRIDE, Encoder
from inference.estimate import Estimate, Peak, Peaks
from inference.network import InferenceNetwork, InputConfig, LogProb
from inference.orders import orders_of
from inference.scan import Scan
from renderer.camera import from_view, to_view
from renderer.scene import Scene
from renderer.spec import SceneSpec


class PosteriorConfig(InputConfig):
    """Sizes of the inference network."""

    kind: Literal["cells"] = "cells"
    channels: int = Field(default=64, ge=8, multiple_of=8)
    summary: int = Field(default=256, ge=1)
    hidden: int = Field(default=128, ge=1)
    keys: int = Field(default=32, ge=1)
    blocks: int = Field(default=3, ge=0)
    max_orders: int = Field(default=24, ge=1)
    # Log of the greatest concentration of the azimuth's density. By default 0.05 degrees, as it was
    # for all networks once: more may be claimed only by those that have learned to.
    sharpest: float = Field(default=14.0, gt=0.0, le=24.0)


class Context(NamedTuple):
    """What is computed once a picture and read by every step."""

    proposals: Proposals
    summary: Tensor  # [B, E]
    azimuth: VonMises  # [B]

    def select(self, rows: Tensor) -> Context:
        """Of pictures `rows` `[R]`, any of them any number of times."""
        return Context(
            self.proposals.select(rows),
            self.summary[rows],
            VonMises(*(value[rows] for value in self.azimuth)),
        )


class Posterior(InferenceNetwork[Context]):
    """The network for real use: objects are proposed by the cells of a map over the table.

    It knows which turns of an object cannot be seen, and may say that an object is here or there.

    Args:
        spec: the world whose scenes are inferred.
        config: sizes of the network.

    Raises:
        ValueError: the pictures of the network and of the camera differ in aspect.
    """

    config: PosteriorConfig

    def __init__(self, spec: SceneSpec, config: PosteriorConfig | None = None) -> None:
        c = config or PosteriorConfig()
        super().__init__(spec, c)
        self.encoder = Encoder(c.height, c.width, c.channels, c.summary, c.blocks)
        anchors = table_anchors(spec, c.height, c.width)
        spacing = 2 * max(spec.placement.extent) / math.sqrt(len(anchors))
        orders = spec.symmetry_orders
        self.proposals = ProposalHead(anchors, spacing, orders, c.channels, c.keys)
        self.cell = Cell(orders, c.summary, c.hidden, c.keys)
        # F(x) of appendix H.4: the camera's azimuth, before any object.
        self.camera = nn.Sequential(
            nn.Linear(c.summary, c.hidden), nn.SiLU(), nn.Linear(c.hidden, 3)
        )

    def encode(self, image: Tensor, *, tolerance: float = 0.0) -> Context:
        """Reads pictures `[B, 3, H, W]` in [0, 1] once; see `InferenceNetwork.encode`."""
        self._check_image(image)
        features = self.encoder(image)
        with torch.autocast(image.device.type, enabled=False):
            proposals = self.proposals(features.cells, tolerance)
            turn = self.camera(features.summary)
        least, greatest = self.spec.camera.azimuth_range
        spread = tolerance / math.hypot(*self.spec.placement.extent)  # rad
        concentration = 1 / (torch.exp(-turn[:, 2].clamp(-6.0, self.config.sharpest)) + spread**2)
        loc = (least + greatest) / 2 + torch.atan2(turn[:, 0], turn[:, 1] + 1.0)
        return Context(proposals, features.summary, VonMises(loc, concentration))

    def log_prob_given(
        self, context: Context, scene: Scene, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """Log density of scenes given encoded pictures, marginalised over the objects' order.

        With more orders than `config.max_orders`, a random subset of them (from below).

        The density is that of the set of n objects: n! times that of a list in which each order
        is as probable, such as `renderer.prior.log_prob` gives.

        Args:
            context: of B pictures.
            scene: B scenes with K slots.
            generator: chooses the subset of orders.

        Raises:
            ValueError: the scenes are not B, or have not K slots.
        """
        self._check_scene(context, scene)
        azimuth = self._log_azimuth(context.azimuth, scene.azimuth)
        objects = self._to_view(scene)
        density = self.proposals.log_density(context.proposals, objects)  # [B, K, G]
        rows = orders_of(
            scene.count, scene.slots, limit=self.config.max_orders, generator=generator
        )
        b, count = rows.picture, scene.count[rows.picture]
        cells = context.proposals.map.select(b)
        angle = scene.azimuth[b]
        state = self.cell.start(context.summary[b], angle, density.shape[-1])
        logits, seen = [], []
        for step in range(scene.slots):
            look = self.cell.attend(state, cells)
            slot = rows.order[:, step]
            logits.append(look.presence_logit)
            seen.append((look.log_weights + density[b, slot]).logsumexp(-1))
            if step + 1 < scene.slots:
                chosen = Objects(*(value[b, slot] for value in objects))
                state = self.cell.advance(state, cells, chosen, angle)
        present = torch.arange(scene.slots, device=count.device) < count[:, None]
        unary = unary_steps(torch.stack(logits, 1), count)
        steps = unary + torch.stack(seen, 1).where(present, 0.0)
        return LogProb(azimuth, rows.logsumexp(steps.sum(1), len(scene)))

    def trace(
        self, context: Context, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Scene]:
        """Draws scenes from the posterior, differentiably, step by step.

        A step chooses whether there is an object, a cell and a class, which leave their log
        probability in `score`, and then a pose, which carries its path-wise derivative. `log_q` is
        the density of what the decoder sees: the cell is summed out.
        """
        device = context.summary.device
        b = torch.arange(len(context.summary), device=device).repeat_interleave(samples)
        context = context.select(b)
        angle, log_q_azimuth = self.draw_azimuth(context, generator)
        cells, rows = context.proposals.map, torch.arange(len(b), device=device)
        state = self.cell.start(context.summary, angle, cells.salience.shape[1])
        logits, bits, found, seen, chosen, hidden = [], [], [], [], [], []
        present = torch.ones(len(b), dtype=torch.bool, device=device)
        for _ in range(self.slots):
            look = self.cell.attend(state, cells)
            hidden.append(state.hidden.detach())
            uniform = torch.rand(len(b), device=device, generator=generator)
            present = present & (uniform < torch.sigmoid(look.presence_logit))
            g = torch.multinomial(look.log_weights.detach().exp(), 1, generator=generator)[:, 0]
            one = self._draw(context.proposals, g, generator)
            density = self.proposals.log_density(
                context.proposals, Objects(*(value[:, None] for value in one))
            )[:, 0]
            log_class = context.proposals.class_logits[rows, g].log_softmax(-1)[rows, one.identity]
            logits.append(look.presence_logit)
            bits.append(present)
            found.append(one)
            seen.append((look.log_weights + density).logsumexp(-1))
            chosen.append(look.log_weights[rows, g] + log_class)
            state = self.cell.advance(state, cells, one, angle)
        objects = Objects(*(torch.stack(value, 1) for value in zip(*found, strict=True)))
        presence = torch.stack(bits, 1)
        unary = unary_steps(torch.stack(logits, 1), presence.sum(1))
        return Trace(
            self._to_table(objects, presence, angle),
            unary + torch.stack(seen, 1).where(presence, 0.0),
            log_q_azimuth,
            unary + torch.stack(chosen, 1).where(presence, 0.0),
            torch.stack(hidden, 1),
        )

    @torch.no_grad()
    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture `[B, 3, H, W]`, object by object."""
        context = self.encode(image)
        batch, device = image.shape[0], image.device
        angle = self._most_probable_azimuth(context)
        azimuth_std = torch.zeros(batch, device=device)
        if self.spec.camera.moves:
            azimuth_std = context.azimuth.std()
        looks, found = zip(*self._look_around(context, angle), strict=True)
        logits = torch.stack([look.presence_logit for look in looks], dim=1)
        probabilities = count_probabilities(logits)
        objects = Objects(
            *(torch.stack(v, 1) for v in zip(*(p.objects for p in found), strict=True))
        )
        covariance = torch.stack([p.covariance for p in found], 1)
        turn = _rotation(angle)[:, None]
        slot = torch.arange(self.slots, device=device)
        scene = Scene(
            slot < probabilities.argmax(1)[:, None],
            objects.identity,
            from_view(self.spec.camera, objects.position, angle[:, None]),
            canonical_yaw(objects.yaw + angle[:, None], self.orders[objects.identity]),
            angle,
        )
        return Estimate(
            scene,
            probabilities,
            at_least_probabilities(logits),
            torch.stack([p.classes for p in found], 1),
            turn @ covariance @ turn.transpose(-1, -2),
            torch.stack([p.yaw_std for p in found], 1),
            azimuth_std,
        )

    @torch.no_grad()
    def scan(self, image: Tensor) -> Scan:
        """Where each step of `infer` looks; see `InferenceNetwork.scan`."""
        context = self.encode(image)
        looks = [
            look for look, _ in self._look_around(context, self._most_probable_azimuth(context))
        ]
        weights = torch.stack([look.log_weights for look in looks], 1).exp()
        rows, columns = self.config.height // STRIDE, self.config.width // STRIDE
        return Scan(
            torch.sigmoid(torch.stack([look.presence_logit for look in looks], 1)),
            weights.unflatten(-1, (rows, columns)),
        )

    def _most_probable_azimuth(self, context: Context) -> Tensor:
        """`[B]` rad."""
        if self.spec.camera.moves:
            return context.azimuth.loc
        return self._centre_azimuth(context.summary)

    def _look_around(self, context: Context, azimuth: Tensor) -> Iterator[tuple[Attention, Peak]]:
        """What each of the K steps decides and finds when it takes the most probable object."""
        cells, peaks = context.proposals.map, Peaks(context.proposals, self.orders)
        state = self.cell.start(context.summary, azimuth, cells.salience.shape[1])
        for step in range(self.slots):
            look = self.cell.attend(state, cells)
            peak = peaks.find(look.log_weights)
            yield look, peak
            if step + 1 < self.slots:
                state = self.cell.advance(state, cells, peak.objects, azimuth)

    def _to_view(self, scene: Scene) -> Objects:
        # Whatever absent slots hold, even no numbers at all, must not reach a gradient.
        present, angle = scene.presence, scene.azimuth[:, None].expand_as(scene.yaw)
        position = scene.position.where(present[..., None], 0.0)
        return Objects(
            scene.identity.where(present, 0),
            to_view(self.spec.camera, position, angle),
            scene.yaw.where(present, 0.0) - angle,
        )

    def _to_table(self, objects: Objects, presence: Tensor, angle: Tensor) -> Scene:
        """Scenes of objects `[R, K]` in the view frame."""
        turn = angle[:, None]
        position = from_view(self.spec.camera, objects.position, turn.expand_as(objects.yaw))
        return Scene(presence, objects.identity, position, wrap(objects.yaw + turn), angle)

    def draw_azimuth(
        self, context: Context, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The camera's azimuth for each row, rad, path-wise, and its log density."""
        centre = self._centre_azimuth(context.summary)
        if not self.spec.camera.moves:
            return centre, torch.zeros_like(centre)
        with torch.no_grad():
            drawn = context.azimuth.sample(generator)
        # Within half a turn of the middle of its range, as the prior has it.
        drawn = centre + wrap(drawn - centre)
        angle = context.azimuth.attach(drawn)
        return angle, context.azimuth.log_prob(angle)

    def _draw(self, proposals: Proposals, g: Tensor, generator: torch.Generator | None) -> Objects:
        """One object from the proposal of cell `g` of each picture, view frame, path-wise."""
        rows = torch.arange(len(g), device=g.device)
        logits = proposals.class_logits[rows, g].detach()
        identity = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        position = PlaneGaussian(*(v[rows, g] for v in proposals.position)).sample(generator)
        density = VonMises(*(v[rows, g, identity] for v in proposals.turned))
        with torch.no_grad():
            turned = density.sample(generator)
        turned = density.attach(turned)
        order = self.orders[identity]
        uniform = torch.rand(len(g), device=g.device, generator=generator)
        branch = torch.floor(uniform * order.clamp_min(1))
        yaw = (turned + 2 * math.pi * branch) / order.clamp_min(1)
        return Objects(identity, position, wrap(yaw))


def _rotation(angle: Tensor) -> Tensor:
    """Rotations of the plane by `[B]` rad: `[B, 2, 2]`."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
