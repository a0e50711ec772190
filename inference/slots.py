"""The paper's network for labels as the paper drew them: an object, or none, in each of K slots.

Scenes of appendix H.2 have a presence of their own in every slot (equation 11), so that a scene of
one object has it in the first slot, or the second, or the third. As labels (appendix H.5) they
impose an order that nothing in the picture tells. It is a baseline, and learns from labels alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from inference.distributions import canonical_yaw
from inference.elbo import Trace
from inference.estimate import Estimate
from inference.network import LogProb
from inference.plain import Described, PlainConfig, PlainContext, PlainPosterior, Step
from renderer.scene import Scene

NOBODY = -1  # the class of an empty slot


class SlotsConfig(PlainConfig):
    """Sizes of the network."""

    kind: Literal["slots"] = "slots"  # type: ignore[assignment]


class SlotPosterior(PlainPosterior):
    """The plain network with a presence in each slot instead of a count; see `PlainPosterior`."""

    config: SlotsConfig

    def log_prob_given(
        self, context: PlainContext, scene: Scene, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """Log density of the slots of scenes, their objects put into random ones.

        Args:
            context: of B pictures.
            scene: B scenes with K slots, present objects first.
            generator: chooses the slots.

        Raises:
            ValueError: the scenes are not B, or have not K slots.
        """
        self._check_scene(context, scene)
        place = torch.rand(scene.presence.shape, generator=generator).argsort(1)
        place = place.to(scene.presence.device)
        present = scene.presence.gather(1, place)
        identity = scene.identity.gather(1, place).where(present, NOBODY)
        pose = torch.cat([scene.position, scene.yaw[..., None]], -1)
        pose = pose.gather(1, place[..., None].expand_as(pose)).where(present[..., None], 0.0)
        known = Described(identity, pose)
        said, _ = self._unroll(
            context, scene.azimuth, lambda step, _: Described(*(v[:, step] for v in known))
        )
        steps = _log_step(said, known)
        return LogProb(self._log_azimuth(context.azimuth, scene.azimuth), steps.sum(1))

    def trace(
        self, context: PlainContext, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Scene]:
        """Draws scenes from q, present objects first; see `InferenceNetwork.trace`."""

        def draw(_: int, said: Step) -> Described:
            logit = said.presence_logit
            uniform = torch.rand(logit.shape, device=logit.device, generator=generator)
            classes = said.class_logits.detach().softmax(-1)
            identity = torch.multinomial(classes, 1, generator=generator)[:, 0]
            present = uniform < torch.sigmoid(logit)
            pose = said.pose.sample(generator).where(present[:, None], 0.0)
            return Described(identity.where(present, NOBODY), pose)

        device = context.summary.device
        context = context.select(
            torch.arange(len(context.summary), device=device).repeat_interleave(samples)
        )
        angle, log_q_azimuth = context.azimuth.mean, torch.zeros_like(context.azimuth.mean)
        if self.spec.camera.moves:
            angle = context.azimuth.sample(generator)
            log_q_azimuth = context.azimuth.log_prob(angle)
        said, objects = self._unroll(context, angle, draw)
        chosen = objects.identity >= 0
        score = torch.where(chosen, said.log_class(objects.identity.clamp_min(0)), 0.0)
        score = score + _log_presence(said, chosen)
        order = _front(chosen)
        return Trace(
            _scene(objects, order, angle),
            _log_step(said, objects).gather(1, order),
            log_q_azimuth,
            score.gather(1, order),
            said.hidden.detach().gather(1, order[..., None].expand_as(said.hidden)),
        )

    @torch.no_grad()
    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture `[B, 3, H, W]`, slot by slot."""
        context = self.encode(image)
        azimuth = context.azimuth

        def best(_: int, said: Step) -> Described:
            present = said.presence_logit > 0
            identity = said.class_logits.argmax(-1).where(present, NOBODY)
            return Described(identity, said.pose.mean.where(present[:, None], 0.0))

        said, objects = self._unroll(context, azimuth.mean, best)
        order = _front(objects.identity >= 0)
        scene = _scene(objects, order, azimuth.mean)
        turns = self.orders[scene.identity]
        spread = said.pose.std.gather(1, order[..., None].expand_as(said.pose.std))
        classes = said.class_logits.softmax(-1)
        counts = _count_probabilities(torch.sigmoid(said.presence_logit))
        return Estimate(
            Scene(
                scene.presence,
                scene.identity,
                scene.position,
                canonical_yaw(scene.yaw, turns),
                scene.azimuth,
            ),
            counts,
            counts.flip(1).cumsum(1).flip(1)[:, 1:],
            classes.gather(1, order[..., None].expand_as(classes)),
            torch.diag_embed(spread[..., :2].square()),
            torch.where(turns == 0, math.inf, spread[..., 2]),
            azimuth.std,
        )

    def _remember(self, chosen: Described) -> Tensor:
        """Of an empty slot, nothing but that there was one."""
        present = chosen.identity >= 0
        told = super()._remember(Described(chosen.identity.clamp_min(0), chosen.pose))
        return told * present[:, None]


def _log_step(said: Step, known: Described) -> Tensor:
    """Log density of what is in each slot: `[R, K]`."""
    present = known.identity >= 0
    seen = said.log_class(known.identity.clamp_min(0)) + said.pose.log_prob(known.pose).sum(-1)
    return _log_presence(said, present) + seen.where(present, 0.0)


def _log_presence(said: Step, present: Tensor) -> Tensor:
    logit = said.presence_logit
    return torch.where(present, logsigmoid(logit), logsigmoid(-logit))


def _front(present: Tensor) -> Tensor:
    """The order of slots `[R, K]` in which present ones come first and stay as they are."""
    return torch.argsort((~present).int(), dim=1, stable=True)


def _scene(objects: Described, order: Tensor, azimuth: Tensor) -> Scene:
    identity = objects.identity.gather(1, order)
    pose = objects.pose.gather(1, order[..., None].expand_as(objects.pose))
    return Scene(identity >= 0, identity.clamp_min(0), pose[..., :2], pose[..., 2], azimuth)


def _count_probabilities(present: Tensor) -> Tensor:
    """p(n), `[B, K + 1]`, of slots that are filled with probabilities `[B, K]` on their own."""
    counts = torch.zeros(len(present), 1, device=present.device) + 1
    for p in present.unbind(1):
        more = torch.nn.functional.pad(counts * p[:, None], (1, 0))
        counts = torch.nn.functional.pad(counts * (1 - p[:, None]), (0, 1)) + more
    return counts
