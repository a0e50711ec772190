"""The engine: pictures in, scenes out, with how well each scene explains its picture.

It knows tensors and scenes, never HTTP. An OpenGL context belongs to the thread that made it, so an
engine is made, used and closed on one thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inference.checkpoint import Checkpoint, load_checkpoint
from inference.estimate import Estimate
from inference.images import Picture, Rectangle
from inference.refine import Refinement, refine
from renderer import Scene, open_renderer
from renderer.jacobian import Drawing
from service.boxes import image_boxes, outlines
from service.intervals import Intervals, intervals
from service.quality import Quality, qualities

# A camera's pixel gathers light over its area. Drawn with one sample a pixel, the true scene
# would differ from its own photo all along the edges.
SUPERSAMPLE = 2

FOREIGN = (
    "The picture differs from the inferred scene more than the pictures that this model knows: do "
    "not trust the answer. Compare table, objects, light and camera with GET /model."
)


HURRIED = (
    "Refinement ran out of time: the spreads are those of the network alone. Ask again when the "
    "server has less to do, or set AIRSCENE_REFINE_SECONDS higher."
)


class EngineError(RuntimeError):
    """The model gave no usable answer."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent."""

    infer: float
    refine: float
    render: float


@dataclass(frozen=True)
class Answer:
    """What was inferred from one picture."""

    checkpoint: Checkpoint  # that answered
    picture: Picture
    estimate: Estimate  # of a batch of one
    within: Intervals
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
        self.shape = (network.height, network.width)
        spec = checkpoint.spec
        self._outlines = outlines(spec)
        self.renderer = open_renderer(
            spec, height=network.height, width=network.width, supersample=SUPERSAMPLE
        )
        self._drawing = Drawing(self.renderer)

    def warm_up(self) -> None:
        """Renders a scene, infers it and takes slopes: what is slow once is slow now."""
        height, width = self.shape
        scene = Scene.empty(1, self.checkpoint.spec.count.max)
        pixels = self.renderer.render(scene)
        whole = Rectangle(0.0, 0.0, float(width), float(height))
        self.infer(Picture(pixels[0], width, height, whole, "", ()))
        scene.presence[:, 0] = True
        wanted = torch.ones(1, 3 * scene.slots + 1, dtype=torch.bool)
        self._drawing.jacobian(scene, pixels, wanted)

    def infer(self, picture: Picture) -> Answer:
        """The most probable scene of a picture.

        Raises:
            EngineError: the network's answer holds numbers that are not finite.
        """
        (answer,) = self.infer_batch([picture])
        if isinstance(answer, EngineError):
            raise answer
        return answer

    @torch.inference_mode()
    def infer_batch(self, pictures: Sequence[Picture]) -> list[Answer | EngineError]:
        """The most probable scene of each picture, in much less time than one by one.

        Where `infer` would raise, the error itself is the answer, and the others are answered.
        `timing` is of the whole batch: so long did each picture's answer take.
        """
        self._check_thread()
        started = time.perf_counter()
        pixels = torch.stack([picture.pixels for picture in pictures])
        estimate = self.checkpoint.infer(pixels)
        # What is not finite can neither be drawn nor boxed.
        usable = [i for i, finite in enumerate(_finite(estimate)) if finite]
        if len(usable) < len(pictures):
            estimate = estimate[torch.tensor(usable, dtype=torch.int64)]
        inferred = time.perf_counter()
        spent = Timing(1e3 * (inferred - started), 0.0, 0.0)
        judged = self._judge([pictures[i] for i in usable], estimate, spent)
        answers: list[Answer | EngineError] = [
            EngineError("the network's answer holds numbers that are not finite") for _ in pictures
        ]
        for i, answer in zip(usable, judged, strict=True):
            answers[i] = answer
        return answers

    @torch.inference_mode()
    def refine(self, answer: Answer, steps: int, seconds: float) -> Answer:
        """The answer after render and compare; never one that explains its picture less well.

        Args:
            answer: of this engine.
            steps: of Gauss-Newton, at most.
            seconds: that it may take; see `inference.refine`.
        """
        self._check_thread()
        started = time.perf_counter()
        refined = refine(
            self.checkpoint.spec,
            answer.estimate,
            answer.picture.pixels[None],
            self._drawing,
            Refinement(steps=steps, seconds=seconds),
        )
        estimate = self.checkpoint.settle(refined, answer.picture.pixels[None])
        spent = replace(answer.timing, refine=1e3 * (time.perf_counter() - started))
        (judged,) = self._judge([answer.picture], estimate, spent)
        if bool(refined.curved.all()):
            return judged
        return replace(judged, warnings=(*judged.warnings, HURRIED))

    def _judge(
        self, pictures: Sequence[Picture], estimate: Estimate, spent: Timing
    ) -> list[Answer]:
        """Answers of what was inferred from pictures; what drawing it takes is added to `spent`."""
        if not pictures:
            return []
        started = time.perf_counter()
        pixels = torch.stack([picture.pixels for picture in pictures])
        quality = qualities(self.renderer, pixels, estimate, self.checkpoint.config)
        boxes = image_boxes(
            self.checkpoint.spec,
            estimate.scene,
            self._outlines,
            shape=self.shape,
            crops=[picture.crop for picture in pictures],
            originals=[(picture.width, picture.height) for picture in pictures],
        )
        within = intervals(self.checkpoint.spec, estimate)
        timing = replace(spent, render=spent.render + 1e3 * (time.perf_counter() - started))
        answers = []
        for i, picture in enumerate(pictures):
            fits = quality[i]
            warnings = picture.warnings
            if not fits.in_distribution:
                warnings += (FOREIGN,)
            answers.append(
                Answer(
                    *(self.checkpoint, picture, estimate[i], within[i], boxes[i]),
                    *(fits, warnings, timing),
                )
            )
        return answers

    def close(self) -> None:
        """Frees the renderer; the engine cannot infer afterwards."""
        self._check_thread()
        self.renderer.close()

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("an Engine must be used on the thread that made it")


def _finite(estimate: Estimate) -> list[bool]:
    """Which estimates hold finite numbers only.

    The yaw's spread may be infinite (no turn shows); nothing else may.
    """
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
    # A sum is finite where all parts are; single ones are never as large as to overflow it.
    sums = [value.flatten(1).sum(1) if value.dim() > 1 else value for value in values]
    return torch.stack(sums).sum(0).isfinite().tolist()
