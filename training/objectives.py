"""What a run maximises: one small object for each, all with the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from inference.build import AnyPosterior
from inference.collapsed import Search
from inference.estimators import ESTIMATORS, Baseline, Recogniser, bound_loss
from inference.likelihood import Likelihood
from inference.posterior import Posterior
from inference.prior import StepPrior
from inference.slots import SlotPosterior
from inference.wakesleep import Settling, sleep_loss, wake_loss
from renderer.backend import Renderer
from renderer.differentiable import differentiable_render
from renderer.jacobian import Drawing
from renderer.scene import Scene

ObjectiveName = Literal["sleep", "elbo", "wake-sleep", "supervised"]
"""`sleep`: log q of scenes that the model drew. `elbo`: the bound of images whose scenes nobody
tells, from scratch. `wake-sleep`: both. `supervised`: as `sleep`, for the plain network and labels
in the order in which they come (appendix H.5)."""

EstimatorName = Literal["enumerate", "nvil", "rloo", "vimco"]


class WakeConfig(BaseModel):
    """How a run learns from images whose scenes nobody tells.

    Pairs are values at the start and, from `until` on, at the end; evenly in the logarithm between.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: EstimatorName = "enumerate"
    samples: int = Field(default=4, ge=1)  # S, tried or drawn for each image
    draws: int = Field(default=4, ge=1)  # M, scenes imitated for each image
    explore: float = Field(default=0.2, ge=0, lt=1)  # share of poses drawn from the prior
    turns: int = Field(default=1, ge=1)  # rotations tried of each object that is found
    polish: int = Field(default=0, ge=0)  # steps of Gauss-Newton towards where it fits
    shrink: int = Field(default=1, ge=1)  # images are compared this many times smaller
    std: tuple[float, float] = (0.5, 0.3)  # of the likelihood, grey levels of 1
    blur: tuple[float, float] = (2.5, 0.5)  # px of the compared images
    until: float = Field(default=0.7, gt=0, le=1)  # part of the run
    pull: float = Field(default=200.0, gt=0)  # nats/m or rad, largest pull of a picture on a pose

    def likelihood(self, part: float) -> Likelihood:
        """The likelihood when `part` of the run is done."""
        share = min(1.0, part / self.until)
        std, blur = (first * (last / first) ** share for first, last in (self.std, self.blur))
        return Likelihood(std, blur)

    @property
    def search(self) -> Search:
        """How hard `enumerate` looks."""
        return Search(self.samples, self.draws, self.explore)

    @property
    def settling(self) -> Settling:
        """What `enumerate` does with what it found."""
        return Settling(self.turns, self.polish)


class Losses(NamedTuple):
    """What a step minimises, and what to write down about it."""

    loss: Tensor  # []
    values: dict[str, Tensor]  # [] each


class Batch(NamedTuple):
    """What a step learns from."""

    dream: Tensor  # [B, 3, H, W] in [0, 1], pictures that the model drew
    scene: Scene  # what they show
    image: Tensor  # [B, 3, H, W] in [0, 1], images whose scenes nobody tells


class Objective(Protocol):
    """Losses of a batch."""

    parts: nn.ModuleDict  # networks beside the posterior that learn with it

    def __call__(
        self, batch: Batch, *, part: float, tolerance: float, generator: torch.Generator
    ) -> Losses:
        """Losses of a batch.

        Args:
            batch: pictures and images; each objective looks at what it may know.
            part: how much of the run is done, in [0, 1].
            tolerance: m; see `Posterior.encode`.
            generator: of random numbers.
        """
        ...


class Sleep:
    """Log density of the scenes that the model drew."""

    def __init__(self, posterior: AnyPosterior) -> None:
        self.posterior, self.parts = posterior, nn.ModuleDict()

    def __call__(
        self, batch: Batch, *, part: float, tolerance: float, generator: torch.Generator
    ) -> Losses:
        """See `Objective`."""
        found = sleep_loss(
            self.posterior, batch.dream, batch.scene, tolerance=tolerance, generator=generator
        )
        values = {f"sleep/{name}": value for name, value in found._asdict().items()}
        return Losses(found.loss, values)


class Wake:
    """The bound on the likelihood of images; what they show is not looked at.

    Args:
        posterior: the network that learns.
        config: estimator, schedules.
        renderer: draws what images are compared with.
    """

    def __init__(self, posterior: AnyPosterior, config: WakeConfig, renderer: Renderer) -> None:
        self.posterior = posterior
        self.compare_with(renderer, config)
        if config.estimator == "enumerate" and not isinstance(posterior, Posterior):
            raise ValueError(
                "the estimator 'enumerate' looks for scenes with the map of cells; for the plain "
                "network choose nvil, rloo or vimco"
            )
        if isinstance(posterior, SlotPosterior):
            raise ValueError(
                "the network of slots is a baseline that learns from labels alone; for images "
                "choose --network cells or plain"
            )
        self.prior = StepPrior.of(posterior.spec, wrapped=isinstance(posterior, Posterior))
        self.parts = nn.ModuleDict()
        self.baseline: Baseline | None = None
        if config.estimator == "nvil":
            self.parts["baseline"] = self.baseline = Baseline(posterior.config.hidden)

    def compare_with(self, renderer: Renderer, config: WakeConfig) -> None:
        """What images are compared with from here on, and how."""
        self.config, self.renderer, self.drawing = config, renderer, Drawing(renderer)

    def __call__(
        self, batch: Batch, *, part: float, tolerance: float, generator: torch.Generator
    ) -> Losses:
        """See `Objective`."""
        config, likelihood = self.config, self.config.likelihood(part)
        image = batch.image
        target = functional.avg_pool2d(image, config.shrink)
        if config.estimator == "enumerate":
            assert isinstance(self.posterior, Posterior)  # see __init__
            found = wake_loss(
                self.posterior,
                image,
                target,
                self.drawing,
                likelihood,
                self.prior,
                config.search,
                config.settling,
                tolerance=tolerance,
                generator=generator,
            )
            return Losses(found.loss, {"wake/loss": found.loss, "wake/bound": found.bound})
        recogniser: Recogniser[Any, Scene] = self.posterior
        surrogate = bound_loss(
            recogniser,
            image,
            target,
            self._decode,
            likelihood,
            self.prior,
            ESTIMATORS[config.estimator],
            samples=config.samples,
            baseline=self.baseline,
            generator=generator,
        )
        return Losses(surrogate.loss, {"wake/bound": surrogate.bound.mean()})

    def _decode(self, scene: Scene) -> Tensor:
        # The loss is a mean over draws: so is each draw's share of the pull.
        bound = self.config.pull / len(scene)
        position, yaw, azimuth = (
            _Bounded.apply(value, bound)  # type: ignore[no-untyped-call]
            for value in (scene.position, scene.yaw, scene.azimuth)
        )
        moved = Scene(scene.presence, scene.identity, position, yaw, azimuth)
        return differentiable_render(self.renderer, moved)


class WakeSleep:
    """Both at once, each on its own pictures."""

    def __init__(self, sleep: Sleep, wake: Wake) -> None:
        self.sleep, self.wake, self.parts = sleep, wake, wake.parts

    def __call__(
        self, batch: Batch, *, part: float, tolerance: float, generator: torch.Generator
    ) -> Losses:
        """See `Objective`."""
        asleep, awake = (
            phase(batch, part=part, tolerance=tolerance, generator=generator)
            for phase in (self.sleep, self.wake)
        )
        return Losses(asleep.loss + awake.loss, {**asleep.values, **awake.values})


def make_objective(
    name: ObjectiveName,
    posterior: AnyPosterior,
    wake: WakeConfig,
    open_decoder: Callable[[], Renderer],
) -> Objective:
    """The objective of that name.

    Args:
        name: which.
        posterior: the network that learns.
        wake: how to learn from images; objectives without them do not look.
        open_decoder: opens what images are compared with, where that is needed.
    """
    if name in ("sleep", "supervised"):
        return Sleep(posterior)
    awake = Wake(posterior, wake, open_decoder())
    return awake if name == "elbo" else WakeSleep(Sleep(posterior), awake)


class _Bounded(torch.autograd.Function):
    """The identity; on the way back, each row's gradient is at most `bound` long.

    A picture that changes all at once, where an edge passes a sample, pulls a thousand times harder
    than the others of its batch.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, bound: float) -> Tensor:
        ctx.bound = bound
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        length = gradient.reshape(len(gradient), -1).norm(dim=1)
        shrink = ctx.bound / length.clamp_min(ctx.bound)
        return gradient * shrink.view(-1, *[1] * (gradient.dim() - 1)), None
