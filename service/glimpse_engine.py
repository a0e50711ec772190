"""The engine of 2D models: pictures in, glimpses out. It knows tensors, never HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference.air2d import Estimate2d
from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d
from inference.glimpse import corners
from inference.images import Picture, Rectangle
from service.engine import EngineError, Timing


@dataclass(frozen=True)
class Glimpse:
    """One object of a picture."""

    score: float  # probability that it is there
    window: Rectangle  # px of the original picture
    mean: list[float]  # of its code
    std: list[float]


@dataclass(frozen=True)
class GlimpseAnswer:
    """What was inferred from one picture."""

    checkpoint: Checkpoint2d  # that answered
    picture: Picture
    count_probabilities: list[float]
    glimpses: list[Glimpse]  # those that are there
    reconstruction_error: float  # mean squared, of pixels in [0, 1]
    explained: float  # share of the picture's squares that the reconstruction takes away
    timing: Timing
    layers: Tensor  # [n, channels, side, side] in [0, 1], each of the glimpses drawn alone


class GlimpseEngine:
    """Infers glimpses with one checkpoint, on the thread that made it.

    Args:
        checkpoint: loaded, or its folder.
        threads: of torch; torch's own choice when not given.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint2d | Path, *, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(checkpoint, Path):
            checkpoint = load_checkpoint2d(checkpoint)
        self.checkpoint = checkpoint
        self._thread = threading.get_ident()

    def warm_up(self) -> None:
        """Infers a black picture: what is slow once is slow now."""
        side = self.checkpoint.model.config.side
        whole = Rectangle(0.0, 0.0, float(side), float(side))
        self.infer_batch([Picture(torch.zeros(3, side, side), side, side, whole, "", ())])

    def infer(self, picture: Picture) -> GlimpseAnswer:
        """What a picture shows.

        Raises:
            EngineError: the network's answer holds numbers that are not finite.
        """
        (answer,) = self.infer_batch([picture])
        if isinstance(answer, EngineError):
            raise answer
        return answer

    @torch.inference_mode()
    def infer_batch(self, pictures: Sequence[Picture]) -> list[GlimpseAnswer | EngineError]:
        """What each picture shows; where `infer` would raise, the error is the answer."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("a GlimpseEngine must be used on the thread that made it")
        model, started = self.checkpoint.model, time.perf_counter()
        pixels = torch.stack([picture.pixels for picture in pictures])
        if model.config.channels == 1:
            pixels = pixels.mean(1, keepdim=True)
        estimate = model.infer(pixels)
        error = (pixels - estimate.picture).square().mean((1, 2, 3))
        light = pixels.square().mean((1, 2, 3))
        explained = torch.where(light > 0, 1 - error / light, 1.0).clamp(0, 1)
        timing = Timing(1e3 * (time.perf_counter() - started), 0.0, 0.0)
        answers: list[GlimpseAnswer | EngineError] = []
        for b, picture in enumerate(pictures):
            if not bool(error[b].isfinite()):
                answers.append(
                    EngineError("the network's answer holds numbers that are not finite")
                )
                continue
            answers.append(
                GlimpseAnswer(
                    self.checkpoint,
                    picture,
                    estimate.count_probabilities[b].tolist(),
                    _glimpses(estimate, b, picture, model.config.side),
                    float(error[b]),
                    float(explained[b]),
                    timing,
                    estimate.layers[b, : int(estimate.count[b])],
                )
            )
        return answers

    def close(self) -> None:
        """There is nothing to free."""


def _glimpses(estimate: Estimate2d, b: int, picture: Picture, side: int) -> list[Glimpse]:
    """What is there in picture `b`, with windows in px of the original."""
    crop = picture.crop
    x_scale, y_scale = crop.width / side, crop.height / side
    found = []
    for k, (left, top, width, height) in enumerate(corners(estimate.where.mean[b], side).tolist()):
        if k == int(estimate.count[b]):
            break
        window = Rectangle(
            crop.x + left * x_scale, crop.y + top * y_scale, width * x_scale, height * y_scale
        )
        found.append(
            Glimpse(
                float(estimate.presence_probability[b, k]),
                window,
                estimate.what.mean[b, k].tolist(),
                estimate.what.std[b, k].tolist(),
            )
        )
    return found
