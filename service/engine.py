"""The engine: one picture in, one scene out, with how well that scene explains the picture.

It knows tensors and scenes, never HTTP. An OpenGL context belongs to the thread that made it, so an
engine is made, used and closed on one thread.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference.checkpoint import Checkpoint, load_checkpoint
from inference.estimate import Estimate
from renderer import Scene, open_renderer
from service.boxes import image_boxes, outline
from service.images import Picture, Rectangle

# Mean squared error above which a picture is unlike those that the model knows, for checkpoints
# that bring no threshold of their own.
LARGEST_ERROR = 0.01

# Difference in any colour channel from which on a pixel is not explained: 25 grey levels,
# well above a camera's noise and well below most objects on most tables.
RESIDUAL = 0.1

# A camera's pixel gathers light over its area. Drawn with one sample a pixel, the true scene
# would differ from its own photo all along the edges.
SUPERSAMPLE = 2


class EngineError(RuntimeError):
    """The model gave no usable answer."""


@dataclass(frozen=True)
class Quality:
    """How well the inferred scene explains the picture."""

    reconstruction_error: float  # mean squared, of pixels in [0, 1]
    explained: float  # see `Engine._quality`
    in_distribution: bool


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent."""

    infer: float
    refine: float
    render: float


@dataclass(frozen=True)
class Answer:
    """What was inferred from one picture."""

    picture: Picture
    estimate: Estimate  # of a batch of one
    boxes: list[Rectangle]  # of the present objects, px of the original picture
    quality: Quality
    warnings: tuple[str, ...]
    timing: Timing


class Engine:
    """Infers scenes with one checkpoint, on the thread that made it.

    Args:
        checkpoint: loaded, or its folder.
        threads: of torch; torch's own choice when not given.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
        BackendError: nothing can render on this machine.
    """

    def __init__(self, checkpoint: Checkpoint | str | Path, *, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        self.checkpoint = checkpoint
        self._thread = threading.get_ident()
        network = checkpoint.posterior.config
        self._shape = (network.height, network.width)
        spec = checkpoint.spec
        self._outlines = [outline(spec, c) for c in range(len(spec.objects))]
        self._renderer = open_renderer(
            spec, height=network.height, width=network.width, supersample=SUPERSAMPLE
        )

    def warm_up(self) -> None:
        """Renders an empty table and infers it: what is slow once is slow now."""
        height, width = self._shape
        pixels = self._renderer.render(Scene.empty(1, self.checkpoint.spec.count.max))[0]
        whole = Rectangle(0.0, 0.0, float(width), float(height))
        self.infer(Picture(pixels, width, height, whole, "", ()))

    @torch.inference_mode()
    def infer(self, picture: Picture) -> Answer:
        """The most probable scene of a picture.

        Raises:
            EngineError: the network's answer holds numbers that are not finite.
        """
        self._check_thread()
        started = time.perf_counter()
        estimate = self.checkpoint.posterior.infer(picture.pixels[None])
        _check_finite(estimate)
        inferred = time.perf_counter()
        quality = self._quality(picture.pixels, estimate.scene)
        boxes = image_boxes(
            self.checkpoint.spec,
            estimate.scene,
            self._outlines,
            shape=self._shape,
            crop=picture.crop,
            original=(picture.width, picture.height),
        )
        warnings = picture.warnings
        if not quality.in_distribution:
            warnings += (
                "The picture differs from the inferred scene more than the pictures that this "
                "model knows: do not trust the answer. Compare table, objects, light and camera "
                "with GET /model.",
            )
        done = time.perf_counter()
        timing = Timing(1e3 * (inferred - started), 0.0, 1e3 * (done - inferred))
        return Answer(picture, estimate, boxes, quality, warnings, timing)

    def close(self) -> None:
        """Frees the renderer; the engine cannot infer afterwards."""
        self._check_thread()
        self._renderer.close()

    def _quality(self, pixels: Tensor, scene: Scene) -> Quality:
        """Draws the scene again and compares.

        With objects, `explained` is the share of what sets the picture `x` apart from the empty
        table that the drawing explains, 1 - |x - drawing|^2 / |x - empty table|^2, cut off to
        [0, 1]. Without objects it is the share of pixels that look like the empty table, to
        within RESIDUAL.

        Args:
            pixels: `[3, H, W]` in [0, 1].
            scene: a batch of one.
        """
        empty = Scene(torch.zeros_like(scene.presence), *list(scene.tensors())[1:])
        drawn, table = self._renderer.render(Scene.cat([scene, empty]))
        error = float((pixels - drawn).square().mean())
        if int(scene.count[0]):
            left_open = float((pixels - table).square().mean())
            explained = min(max(1.0 - error / left_open, 0.0), 1.0) if left_open else 0.0
        else:
            differs = (pixels - table).abs().amax(0) > RESIDUAL
            explained = 1.0 - float(differs.float().mean())
        thresholds = self.checkpoint.config.quality or {}
        limit = thresholds.get("reconstruction_error", LARGEST_ERROR)
        return Quality(error, explained, error <= limit)

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("an Engine must be used on the thread that made it")


def _check_finite(estimate: Estimate) -> None:
    """The yaw's spread may be infinite (no turn shows); nothing else may."""
    scene = estimate.scene
    values = (
        scene.position,
        scene.yaw,
        scene.azimuth,
        estimate.count_probabilities,
        estimate.class_probabilities,
        estimate.position_covariance,
        estimate.azimuth_std,
    )
    if not all(bool(value.isfinite().all()) for value in values):
        raise EngineError("the network's answer holds numbers that are not finite")
