"""What every inference network q(scene | image) can do, whatever it is made of.

The objectives, the checkpoint and the evaluation know a network by this interface; how it looks at
a picture and which densities it has at its disposal is its own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from inference.elbo import Trace
from inference.encoder import COARSE_STRIDE
from inference.estimate import Estimate
from inference.scan import Scan
from renderer.scene import Scene
from renderer.spec import SceneSpec

ASPECT_TOLERANCE = 0.03  # between the network's input and the spec's camera


class InputConfig(BaseModel):
    """Size of the pictures that a network reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(default=128, ge=COARSE_STRIDE, multiple_of=COARSE_STRIDE)  # px
    width: int = Field(default=128, ge=COARSE_STRIDE, multiple_of=COARSE_STRIDE)  # px


class LogProb(NamedTuple):
    """Log density of a scene given its picture, in its two factors."""

    azimuth: Tensor  # [B] log q(azimuth | image); 0 when the camera does not move
    objects: Tensor  # [B] log q(objects | image, azimuth)

    @property
    def total(self) -> Tensor:
        """`[B]` nats."""
        return self.azimuth + self.objects


class AzimuthDensity(Protocol):
    """A density over the camera's azimuth."""

    def log_prob(self, value: Tensor, /) -> Tensor:
        """Log density of azimuths, rad."""
        ...


class EncodedPictures(Protocol):
    """What a network computed once a picture, and reads at every step."""

    @property
    def summary(self) -> Tensor:
        """Features of the whole picture, `[B, E]`."""
        ...

    def select(self, rows: Tensor) -> Self:
        """Of pictures `rows` `[R]`, any of them any number of times."""
        ...


ContextT = TypeVar("ContextT", bound=EncodedPictures)


class InferenceNetwork(nn.Module, ABC, Generic[ContextT]):
    """q(count, identities, poses, azimuth | image) for the scenes of one SceneSpec.

    Args:
        spec: the world whose scenes are inferred.
        config: sizes of the network.

    Raises:
        ValueError: the pictures of the network and of the camera differ in aspect.
    """

    config: InputConfig
    orders: Tensor  # [C] int64, symmetry order of each class

    def __init__(self, spec: SceneSpec, config: InputConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        if abs(config.width / config.height / spec.camera.aspect - 1) > ASPECT_TOLERANCE:
            raise ValueError(
                f"a network for pictures of {config.width}x{config.height} px does not fit the "
                f"camera's aspect {spec.camera.aspect:g}; give it a width near height * aspect"
            )
        self.slots = spec.count.max
        self.register_buffer("orders", torch.tensor(spec.symmetry_orders), persistent=False)

    @abstractmethod
    def encode(self, image: Tensor, *, tolerance: float = 0.0) -> ContextT:
        """Reads pictures `[B, 3, H, W]` in [0, 1] once.

        With a `tolerance` (m), positions, and the azimuth accordingly, are never sharper than
        that. Training starts with a large one: a Gaussian pulls on its mean with 1 / std^2, and a
        network that knows positions to millimetres hears nothing else while it has yet to learn
        what a yaw is.
        """

    @abstractmethod
    def log_prob_given(
        self, context: ContextT, scene: Scene, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """`log_prob` for pictures that were encoded before."""

    @abstractmethod
    def trace(
        self, context: ContextT, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Trace[Scene]:
        """Draws scenes from q, differentiably, step by step.

        A step's discrete choices leave their log probability in `score`; its pose carries the
        path-wise derivative. `log_q` is the density of the objects in the order of the steps.

        Args:
            context: of B encoded pictures.
            samples: S, scenes a picture.
            generator: of random numbers.

        Returns:
            B * S scenes; those of one picture lie side by side.
        """

    @abstractmethod
    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture `[B, 3, H, W]`, object by object."""

    def scan(self, image: Tensor) -> Scan | None:
        """How `infer` comes to its answer; None of networks that attend to no place.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
        """
        return None

    def log_prob(
        self,
        image: Tensor,
        scene: Scene,
        *,
        tolerance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> LogProb:
        """Log density of scenes given their pictures.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
            scene: B scenes with K slots.
            tolerance: m, no density is sharper than this; see `encode`.
            generator: chooses among the orders of crowded scenes.

        Raises:
            ValueError: the scenes are not B, or have not K slots.
        """
        context = self.encode(image, tolerance=tolerance)
        with torch.autocast(image.device.type, enabled=False):
            return self.log_prob_given(context, scene, generator=generator)

    @torch.no_grad()
    def sample(
        self, image: Tensor, samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Scene:
        """Draws scenes from q.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
            samples: S, scenes a picture.
            generator: of random numbers.

        Returns:
            B * S scenes; those of one picture lie side by side.
        """
        return self.trace(self.encode(image), samples, generator=generator).latents

    def _check_image(self, image: Tensor) -> None:
        expected = (3, self.config.height, self.config.width)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"pictures have shape {tuple(image.shape[1:])}, expected {expected}")

    def _check_scene(self, context: ContextT, scene: Scene) -> None:
        shape, expected = tuple(scene.presence.shape), (len(context.summary), self.slots)
        if shape != expected:
            raise ValueError(f"scenes have shape [B, K] = {shape}, expected {expected}")

    def _log_azimuth(self, density: AzimuthDensity, azimuth: Tensor) -> Tensor:
        """Log density of azimuths `[B]` rad; 0 where the camera does not move."""
        if self.spec.camera.moves:
            return density.log_prob(azimuth)
        return torch.zeros_like(azimuth)

    def _centre_azimuth(self, summary: Tensor) -> Tensor:
        """The azimuth in the middle of its range: the only one when the camera does not move."""
        least, greatest = self.spec.camera.azimuth_range
        return summary.new_full(summary.shape[:1], (least + greatest) / 2)
