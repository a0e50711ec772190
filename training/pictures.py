"""The images of the 2D experiments: which there are, made once and kept.

A set depends on its description alone, never on a run's seed, so that all runs of an experiment
learn from the same images and are measured on the same others.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from inference.checkpoint import write_atomically
from renderer.choice import cache_folder
from training.digits import (
    Bytes,
    Composed,
    Split,
    read_digits,
    separate_digits,
    shrunk_digits,
)
from training.omniglot import choose, on_canvas, read_drawings
from training.sprites import sprites

VERSION = 1  # of how images are made: another one makes those on disk anew


class PictureData(BaseModel):
    """A set of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["separate-digits", "shrunk-digits", "sprites", "omniglot"]
    counts: tuple[int, ...] = (0, 1, 2)  # how many an image shows, each as likely
    images: int = Field(default=60_000, ge=1)
    seed: int = 0

    @property
    def channels(self) -> Literal[1, 3]:
        """Of an image."""
        return 3 if self.form == "sprites" else 1


@dataclass(frozen=True)
class Pictures:
    """A set of images, and how many objects each shows."""

    image: Tensor  # [n, channels, 50, 50] uint8
    count: Tensor  # [n] int64; no training run looks at it

    def batch(self, rows: Tensor) -> Tensor:
        """Images `rows` as the network takes them, `[B, channels, 50, 50]` in [0, 1]."""
        return self.image[rows].float().div_(255.0)


def load_pictures(data: PictureData, split: Split) -> Pictures:
    """The images of a set, from the disk if they were made before.

    They are kept under `$XDG_CACHE_HOME/airscene`, by default `~/.cache/airscene`.

    Args:
        data: which.
        split: whose digits they show; the two share none. Sprites differ by their places.

    Raises:
        DataError: MNIST is not there, or so many objects find no room.
    """
    key = f"{VERSION} {split} {data.model_dump_json()}"
    name = f"{data.form}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    path = cache_folder() / name
    if not path.exists():
        image, count = _make(data, split)
        content = io.BytesIO()
        np.savez_compressed(content, image=image, count=count)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    with np.load(path) as file:
        return Pictures(torch.from_numpy(file["image"]), torch.from_numpy(file["count"]))


def image_numbers(data: PictureData, split: Split) -> np.random.Generator:
    """The random numbers from which a set of images is made."""
    return np.random.default_rng([data.seed, 0 if split == "train" else 1])


def _make(data: PictureData, split: Split) -> tuple[np.ndarray, np.ndarray]:
    random = image_numbers(data, split)
    if data.form == "sprites":
        return sprites(data.counts, data.images, random)
    if data.form == "omniglot":
        drawings = choose(read_drawings(split), data.images, random)
        return on_canvas(drawings)[:, None], np.ones(len(drawings), dtype=np.int64)
    image, count, _ = compose_digits(data, read_digits(split), random)
    return image[:, None], count


def compose_digits(data: PictureData, digits: Bytes, random: np.random.Generator) -> Composed:
    """Images of digits `[m, 28, 28]` in the form that `data` says, and what they show."""
    compose = separate_digits if data.form == "separate-digits" else shrunk_digits
    return compose(digits, data.counts, data.images, random)
