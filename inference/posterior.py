"""The recurrent, variable-length posterior q(scene | image) of section 2.1 and appendix H.4."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from inference.anchors import table_anchors
from inference.cell import Cell, Objects, ProposalHead, Proposals
from inference.distributions import PlaneGaussian, VonMises, count_probabilities, wrap
from inference.elbo import Trace
from inference.encoder import Encoder
from inference.estimate import Estimate, find_peak
from inference.orders import orders_of
from renderer.camera import from_view, to_view
from renderer.scene import Scene
from renderer.spec import SceneSpec

ASPECT_TOLERANCE = 0.03  # between the network's input and the spec's camera


class PosteriorConfig(BaseModel):
    """Sizes of the inference network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(default=128, ge=16, multiple_of=16)  # px
    width: int = Field(default=128, ge=16, multiple_of=16)  # px
    channels: int = Field(default=64, ge=8, multiple_of=8)
    summary: int = Field(default=256, ge=1)
    hidden: int = Field(default=128, ge=1)
    keys: int = Field(default=32, ge=1)
    blocks: int = Field(default=3, ge=0)
    max_orders: int = Field(default=24, ge=1)


class LogProb(NamedTuple):
    """Log density of a scene given its picture, in its two factors."""

    azimuth: Tensor  # [B] log q(azimuth | image); 0 when the camera does not move
    objects: Tensor  # [B] log q(objects | image, azimuth), summed over their orders

    @property
    def total(self) -> Tensor:
        """`[B]` nats."""
        return self.azimuth + self.objects


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


class Posterior(nn.Module):
    """q(count, identities, poses, azimuth | image) for the scenes of one SceneSpec.

    Args:
        spec: the world whose scenes are inferred.
        config: sizes of the network.

    Raises:
        ValueError: the pictures of the network and of the camera differ in aspect.
    """

    orders: Tensor  # [C] int64

    def __init__(self, spec: SceneSpec, config: PosteriorConfig | None = None) -> None:
        super().__init__()
        self.spec, self.config = spec, config or PosteriorConfig()
        c = self.config
        if abs(c.width / c.height / spec.camera.aspect - 1) > ASPECT_TOLERANCE:
            raise ValueError(
                f"a network for pictures of {c.width}x{c.height} px does not fit the camera's "
                f"aspect {spec.camera.aspect:g}; give it a width near height * aspect"
            )
        self.slots = spec.count.max
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
        self.register_buffer("orders", torch.tensor(orders), persistent=False)

    def encode(self, image: Tensor, *, tolerance: float = 0.0) -> Context:
        """Reads pictures `[B, 3, H, W]` in [0, 1] once.

        With a `tolerance` (m), positions, and the azimuth accordingly, are never sharper than
        that. Training starts with a large one: a Gaussian pulls on its mean with 1 / std^2, and a
        network that knows positions to millimetres hears nothing else while it has yet to learn
        what a yaw is.
        """
        expected = (3, self.config.height, self.config.width)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"pictures have shape {tuple(image.shape[1:])}, expected {expected}")
        features = self.encoder(image)
        with torch.autocast(image.device.type, enabled=False):
            proposals = self.proposals(features.cells, tolerance)
            turn = self.camera(features.summary)
        least, greatest = self.spec.camera.azimuth_range
        spread = tolerance / math.hypot(*self.spec.placement.extent)  # rad
        concentration = 1 / (torch.exp(-turn[:, 2].clamp(-6.0, 14.0)) + spread**2)
        loc = (least + greatest) / 2 + torch.atan2(turn[:, 0], turn[:, 1] + 1.0)
        return Context(proposals, features.summary, VonMises(loc, concentration))

    def log_prob(
        self,
        image: Tensor,
        scene: Scene,
        *,
        tolerance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> LogProb:
        """Log density of scenes given their pictures, marginalised over the objects' order.

        With more orders than `config.max_orders`, a random subset of them (from below).

        The density is that of the set of n objects: n! times that of a list in which each order
        is as probable, such as `renderer.prior.log_prob` gives.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
            scene: B scenes with K slots.
            tolerance: m, no density is sharper than this; see `encode`.
            generator: chooses the subset of orders.

        Raises:
            ValueError: the scenes are not B, or have not K slots.
        """
        context = self.encode(image, tolerance=tolerance)
        with torch.autocast(image.device.type, enabled=False):
            return self.log_prob_given(context, scene, generator=generator)

    def log_prob_given(
        self, context: Context, scene: Scene, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """`log_prob` for pictures that were encoded before."""
        shape, expected = tuple(scene.presence.shape), (len(context.summary), self.slots)
        if shape != expected:
            raise ValueError(f"scenes have shape [B, K] = {shape}, expected {expected}")
        azimuth = torch.zeros_like(scene.azimuth)
        if self.spec.camera.moves:
            azimuth = context.azimuth.log_prob(scene.azimuth)
        objects = self._to_view(scene)
        density = self.proposals.log_density(context.proposals, objects)  # [B, K, G]
        rows = orders_of(
            scene.count, scene.slots, limit=self.config.max_orders, generator=generator
        )
        b, count = rows.picture, scene.count[rows.picture]
        cells = context.proposals.map.select(b)
        angle = scene.azimuth[b]
        state = self.cell.start(context.summary[b], angle, density.shape[-1])
        total = torch.zeros(len(b), device=density.device)
        for step in range(scene.slots):
            look = self.cell.attend(state, cells)
            slot = rows.order[:, step]
            seen = (look.log_weights + density[b, slot]).logsumexp(-1)
            on = nn.functional.logsigmoid(look.presence_logit) + seen
            off = nn.functional.logsigmoid(-look.presence_logit)
            total = total + torch.where(count > step, on, torch.where(count == step, off, 0.0))
            if step + 1 < scene.slots:
                chosen = Objects(*(value[b, slot] for value in objects))
                state = self.cell.advance(state, cells, chosen, angle)
        return LogProb(azimuth, rows.logsumexp(total, len(scene)))

    def trace(
        self, context: Context, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Scene]:
        """Draws scenes from the posterior, differentiably, step by step.

        A step chooses whether there is an object, a cell and a class, which leave their log
        probability in `score`, and then a pose, which carries its path-wise derivative. `log_q` is
        the density of what the decoder sees: the cell is summed out.

        Args:
            context: of B encoded pictures.
            samples: S, scenes a picture.
            generator: of random numbers.

        Returns:
            B * S scenes; those of one picture lie side by side.
        """
        device = context.summary.device
        b = torch.arange(len(context.summary), device=device).repeat_interleave(samples)
        context = context.select(b)
        angle, log_q_azimuth = self.draw_azimuth(context, generator)
        cells, rows = context.proposals.map, torch.arange(len(b), device=device)
        state = self.cell.start(context.summary, angle, cells.salience.shape[1])
        presence, found, log_q, score, hidden = [], [], [], [], []
        present = torch.ones(len(b), dtype=torch.bool, device=device)
        for _ in range(self.slots):
            before = present
            look = self.cell.attend(state, cells)
            hidden.append(state.hidden.detach())
            uniform = torch.rand(len(b), device=device, generator=generator)
            present = before & (uniform < torch.sigmoid(look.presence_logit))
            g = torch.multinomial(look.log_weights.detach().exp(), 1, generator=generator)[:, 0]
            one = self._draw(context.proposals, g, generator)
            density = self.proposals.log_density(
                context.proposals, Objects(*(value[:, None] for value in one))
            )[:, 0]
            chosen = context.proposals.class_logits[rows, g].log_softmax(-1)[rows, one.identity]
            on = nn.functional.logsigmoid(look.presence_logit)
            off = nn.functional.logsigmoid(-look.presence_logit).where(before, 0.0)
            seen = (look.log_weights + density).logsumexp(-1)
            log_q.append(torch.where(present, on + seen, off))
            score.append(torch.where(present, on + look.log_weights[rows, g] + chosen, off))
            presence.append(present)
            found.append(one)
            state = self.cell.advance(state, cells, one, angle)
        objects = Objects(*(torch.stack(value, 1) for value in zip(*found, strict=True)))
        return Trace(
            self._to_table(objects, torch.stack(presence, 1), angle),
            torch.stack(log_q, 1),
            log_q_azimuth,
            torch.stack(score, 1),
            torch.stack(hidden, 1),
        )

    @torch.no_grad()
    def sample(
        self, image: Tensor, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Scene:
        """Draws scenes from the posterior.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
            samples: S, scenes a picture.
            generator: of random numbers.

        Returns:
            B * S scenes; those of one picture lie side by side.
        """
        return self.trace(self.encode(image), samples, generator=generator).latents

    @torch.no_grad()
    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture `[B, 3, H, W]`, object by object."""
        context = self.encode(image)
        batch, device = len(image), image.device
        angle = self._centre_azimuth(context.summary)
        azimuth_std = torch.zeros(batch, device=device)
        if self.spec.camera.moves:
            angle, azimuth_std = context.azimuth.loc, context.azimuth.std()
        cells = context.proposals.map
        state = self.cell.start(context.summary, angle, cells.salience.shape[1])
        presence, found = [], []
        for _ in range(self.slots):
            look = self.cell.attend(state, cells)
            peak = find_peak(context.proposals, look.log_weights, self.orders)
            presence.append(look.presence_logit)
            found.append(peak)
            state = self.cell.advance(state, cells, peak.objects, angle)
        logits = torch.stack(presence, dim=1)
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
            self._canonical(objects.yaw + angle[:, None], objects.identity),
            angle,
        )
        return Estimate(
            scene,
            probabilities,
            torch.sigmoid(logits).cumprod(1),
            torch.stack([p.classes for p in found], 1),
            turn @ covariance @ turn.transpose(-1, -2),
            torch.stack([p.yaw_std for p in found], 1),
            azimuth_std,
        )

    def _centre_azimuth(self, summary: Tensor) -> Tensor:
        """The azimuth in the middle of its range: the only one when the camera does not move."""
        least, greatest = self.spec.camera.azimuth_range
        return summary.new_full(summary.shape[:1], (least + greatest) / 2)

    def _to_view(self, scene: Scene) -> Objects:
        # Whatever absent slots hold, even no numbers at all, must not reach a gradient.
        present, angle = scene.presence, scene.azimuth[:, None].expand_as(scene.yaw)
        position = scene.position.where(present[..., None], 0.0)
        return Objects(
            scene.identity.where(present, 0),
            to_view(self.spec.camera, position, angle),
            scene.yaw.where(present, 0.0) - angle,
        )

    def _canonical(self, yaw: Tensor, identity: Tensor) -> Tensor:
        """Of all yaws that look alike, the one nearest to 0."""
        order = self.orders[identity]
        turned = wrap(order * yaw) / order.clamp_min(1)
        return torch.where(order == 0, 0.0, turned)

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
