"""The paper's own inference network (appendix H.4): one vector, a plain recurrence, Gaussians.

It knows nothing of the symmetries of objects, and each step says one place and one yaw. Trained on
labels it is the supervised baseline of appendix H.5; trained on the bound of equation 3, the
paper's AIR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from inference.distributions import (
    Gaussian,
    at_least_probabilities,
    canonical_yaw,
    count_probabilities,
    unary_steps,
)
from inference.elbo import Trace
from inference.encoder import COARSE_STRIDE, coarse_cells, levels
from inference.estimate import Estimate
from inference.network import InferenceNetwork, InputConfig, LogProb
from inference.orders import given_order, orders_of
from renderer.scene import Scene
from renderer.spec import SceneSpec

LEAST_STD = 5e-4  # m
LEAST_ANGLE_STD = 1e-3  # rad
SQUEEZED = 32  # features of a coarse cell that reach the summary
# Log of how far a standard deviation may get from its first value. The upper end matters where no
# turn shows: a yaw on the real line has no end of room to be unknown in.
LOG_STD_RANGE = (-8.0, 1.0)


class PlainConfig(InputConfig):
    """Sizes of the plain network, and what it makes of the order of a scene's objects."""

    kind: Literal["plain"] = "plain"
    height: int = Field(default=32, ge=COARSE_STRIDE, multiple_of=COARSE_STRIDE)  # px
    width: int = Field(default=32, ge=COARSE_STRIDE, multiple_of=COARSE_STRIDE)  # px
    channels: int = Field(default=64, ge=8, multiple_of=8)
    summary: int = Field(default=256, ge=1)
    hidden: int = Field(default=256, ge=1)
    blocks: int = Field(default=3, ge=0)
    # The density of a scene: of its objects in the order of their slots, or in any.
    order: Literal["given", "any"] = "given"
    max_orders: int = Field(default=24, ge=1)


class PlainContext(NamedTuple):
    """What is computed once a picture and read by every step."""

    summary: Tensor  # [B, E]
    azimuth: Gaussian  # [B] rad; of standard deviation 0 when the camera does not move
    tolerance: float  # m, no position is sharper than this

    def select(self, rows: Tensor) -> PlainContext:
        """Of pictures `rows` `[R]`, any of them any number of times."""
        azimuth = Gaussian(*(value[rows] for value in self.azimuth))
        return PlainContext(self.summary[rows], azimuth, self.tolerance)


class Described(NamedTuple):
    """Objects as the network knows them."""

    identity: Tensor  # [...] int64
    pose: Tensor  # [..., 3]: x, y in m and yaw in rad, table frame


class Step(NamedTuple):
    """The parameters of the densities of one step, or of K steps side by side."""

    presence_logit: Tensor  # [R] or [R, K]
    class_logits: Tensor  # [..., C]
    pose: Gaussian  # [..., 3]
    hidden: Tensor  # [..., D]

    @staticmethod
    def stack(steps: Sequence[Step]) -> Step:
        """K steps of `[R, ...]` as one of `[R, K, ...]`."""
        logits, classes, poses, hidden = zip(*steps, strict=True)
        pose = Gaussian(*(torch.stack(value, 1) for value in zip(*poses, strict=True)))
        return Step(torch.stack(logits, 1), torch.stack(classes, 1), pose, torch.stack(hidden, 1))

    def log_class(self, identity: Tensor) -> Tensor:
        """Log probability of classes `[...]`."""
        return self.class_logits.log_softmax(-1).gather(-1, identity[..., None])[..., 0]


class PlainPosterior(InferenceNetwork[PlainContext]):
    """The network of the paper's baselines.

    Args:
        spec: the world whose scenes are inferred.
        config: sizes of the network.

    Raises:
        ValueError: the pictures of the network and of the camera differ in aspect.
    """

    config: PlainConfig
    pose_unit: Tensor  # [3]: m, m, rad

    def __init__(self, spec: SceneSpec, config: PlainConfig | None = None) -> None:
        c = config or PlainConfig()
        super().__init__(spec, c)
        self.classes = len(spec.objects)
        self.encoder = nn.Sequential(
            *levels(c.channels, c.blocks),
            nn.Conv2d(2 * c.channels, SQUEEZED, 1),
            nn.Flatten(),
            nn.Linear(SQUEEZED * coarse_cells(c.height, c.width), c.summary),
            nn.SiLU(),
        )
        # R of appendix H.4 reads the picture, the azimuth, and the object of the step before.
        self.recur = nn.RNNCell(c.summary + 1 + 1 + self.classes + 3, c.hidden)
        self.head = nn.Linear(c.hidden, 1 + self.classes + 6)
        # F of appendix H.4: the camera's azimuth, before any object.
        self.camera: nn.Sequential | None = None
        if spec.camera.moves:
            self.camera = nn.Sequential(
                nn.Linear(c.summary, c.hidden), nn.SiLU(), nn.Linear(c.hidden, 2)
            )
        x, y = spec.placement.extent
        self.register_buffer("pose_unit", torch.tensor([x / 2, y / 2, 1.0]), persistent=False)

    def encode(self, image: Tensor, *, tolerance: float = 0.0) -> PlainContext:
        """Reads pictures `[B, 3, H, W]` in [0, 1] once; see `InferenceNetwork.encode`."""
        self._check_image(image)
        summary = self.encoder(image - 0.5).float()
        centre = self._centre_azimuth(summary)
        azimuth = Gaussian(centre, torch.zeros_like(centre))
        if self.camera is not None:
            with torch.autocast(image.device.type, enabled=False):
                read = self.camera(summary)
            least, greatest = self.spec.camera.azimuth_range
            sharpest = LEAST_ANGLE_STD + tolerance / math.hypot(*self.spec.placement.extent)
            offset = _gaussian(read, (greatest - least) / 4, sharpest)
            azimuth = Gaussian(centre + offset.mean[:, 0], offset.std[:, 0])
        return PlainContext(summary, azimuth, tolerance)

    def log_prob_given(
        self, context: PlainContext, scene: Scene, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """Log density of scenes given encoded pictures.

        With `config.order` "given" that of the list of objects, slot by slot. With "any" that of
        the set, the sum over all orders, or over a random `config.max_orders` of them (from below).

        Args:
            context: of B pictures.
            scene: B scenes with K slots.
            generator: chooses the subset of orders.

        Raises:
            ValueError: the scenes are not B, or have not K slots.
        """
        self._check_scene(context, scene)
        azimuth = self._log_azimuth(context.azimuth, scene.azimuth)
        # Whatever absent slots hold, even no numbers at all, must not reach a gradient.
        identity = scene.identity.where(scene.presence, 0)
        pose = torch.cat([scene.position, scene.yaw[..., None]], -1)
        pose = pose.where(scene.presence[..., None], 0.0)
        if self.config.order == "given":
            rows = given_order(len(scene), scene.slots, device=pose.device)
        else:
            rows = orders_of(
                scene.count, scene.slots, limit=self.config.max_orders, generator=generator
            )
        b = rows.picture
        known = Described(identity[b[:, None], rows.order], pose[b[:, None], rows.order])
        said, _ = self._unroll(
            context.select(b),
            scene.azimuth[b],
            lambda step, _: Described(*(value[:, step] for value in known)),
        )
        count = scene.count[b]
        present = torch.arange(scene.slots, device=count.device) < count[:, None]
        seen = said.log_class(known.identity) + said.pose.log_prob(known.pose).sum(-1)
        steps = unary_steps(said.presence_logit, count) + seen.where(present, 0.0)
        return LogProb(azimuth, rows.logsumexp(steps.sum(1), len(scene)))

    def trace(
        self, context: PlainContext, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Scene]:
        """Draws scenes from q, differentiably, step by step; see `InferenceNetwork.trace`.

        Yaws are drawn from the real line and stay as drawn: another turn has another density.
        """

        def draw(_: int, said: Step) -> Described:
            classes = said.class_logits.detach().softmax(-1)
            identity = torch.multinomial(classes, 1, generator=generator)[:, 0]
            return Described(identity, said.pose.sample(generator))

        device = context.summary.device
        b = torch.arange(len(context.summary), device=device).repeat_interleave(samples)
        context = context.select(b)
        angle, log_q_azimuth = context.azimuth.mean, torch.zeros_like(context.azimuth.mean)
        if self.spec.camera.moves:
            angle = context.azimuth.sample(generator)
            log_q_azimuth = context.azimuth.log_prob(angle)
        said, objects = self._unroll(context, angle, draw)
        logits = said.presence_logit
        uniform = torch.rand(logits.shape, device=device, generator=generator)
        presence = (uniform < torch.sigmoid(logits)).cumprod(1).bool()
        chosen = said.log_class(objects.identity)
        unary = unary_steps(logits, presence.sum(1))
        seen = chosen + said.pose.log_prob(objects.pose).sum(-1)
        return Trace(
            Scene(presence, objects.identity, objects.pose[..., :2], objects.pose[..., 2], angle),
            unary + seen.where(presence, 0.0),
            log_q_azimuth,
            unary + chosen.where(presence, 0.0),
            said.hidden.detach(),
        )

    @torch.no_grad()
    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture `[B, 3, H, W]`, object by object.

        The estimate is put as every other is: of yaws that look alike the one nearest to 0, and no
        spread where no turn shows. The densities know nothing of that.
        """
        context = self.encode(image)
        azimuth = context.azimuth
        said, objects = self._unroll(
            context,
            azimuth.mean,
            lambda _, said: Described(said.class_logits.argmax(-1), said.pose.mean),
        )
        probabilities = count_probabilities(said.presence_logit)
        order = self.orders[objects.identity]
        yaw = canonical_yaw(objects.pose[..., 2], order)
        slot = torch.arange(self.slots, device=image.device)
        presence = slot < probabilities.argmax(1)[:, None]
        return Estimate(
            Scene(presence, objects.identity, objects.pose[..., :2], yaw, azimuth.mean),
            probabilities,
            at_least_probabilities(said.presence_logit),
            said.class_logits.softmax(-1),
            torch.diag_embed(said.pose.std[..., :2].square()),
            torch.where(order == 0, math.inf, said.pose.std[..., 2]),
            azimuth.std,
        )

    def _unroll(
        self,
        context: PlainContext,
        azimuth: Tensor,
        choose: Callable[[int, Step], Described],
    ) -> tuple[Step, Described]:
        """Runs all K steps, each told which object `choose` made of the step before.

        Args:
            context: of R pictures.
            azimuth: `[R]` rad, of the camera.
            choose: from a step and what it says to R objects.

        Returns:
            What the steps say and which objects were chosen, `[R, K, ...]`.
        """
        summary = context.summary
        once = torch.cat([summary, (azimuth - self._centre_azimuth(summary))[:, None]], 1)
        hidden = summary.new_zeros(summary.shape[0], self.config.hidden)
        # Nothing yet. Behind it z_pres is always 1: after a 0 nothing counts.
        before = summary.new_zeros(summary.shape[0], 1 + self.classes + 3)
        steps, objects = [], []
        for step in range(self.slots):
            hidden = self.recur(torch.cat([once, before], 1), hidden)
            said = self._read(hidden, context.tolerance)
            chosen = choose(step, said)
            steps.append(said)
            objects.append(chosen)
            before = self._remember(chosen)
        stacked = Described(*(torch.stack(value, 1) for value in zip(*objects, strict=True)))
        return Step.stack(steps), stacked

    def _remember(self, chosen: Described) -> Tensor:
        """What a step is told of the one before: z_pres, z_what and z_where, `[R, 1 + C + 3]`."""
        kind = nn.functional.one_hot(chosen.identity, self.classes).to(chosen.pose.dtype)
        pose = chosen.pose / self.pose_unit
        return torch.cat([torch.ones_like(pose[:, :1]), kind, pose], 1)

    def _read(self, hidden: Tensor, tolerance: float) -> Step:
        """What a step in state `[R, D]` says."""
        presence, classes, pose = self.head(hidden).split([1, self.classes, 6], -1)
        sharpest = pose.new_tensor([LEAST_STD + tolerance, LEAST_STD + tolerance, LEAST_ANGLE_STD])
        return Step(presence[:, 0], classes, _gaussian(pose, self.pose_unit, sharpest), hidden)


def _gaussian(read: Tensor, unit: Tensor | float, sharpest: Tensor | float) -> Gaussian:
    """The Gaussian over n numbers from `[..., 2 n]` outputs; for outputs of 0, 0 +- `unit`."""
    mean, log_std = read.chunk(2, -1)
    return Gaussian(unit * mean, sharpest + unit * log_std.clamp(*LOG_STD_RANGE).exp())
