"""Multi-MNIST: images of a few handwritten digits on a black canvas (section 3.1, figure 4a).

Two forms. The paper's: digits as they are, not overlapping. Pyro's: digits a bit smaller, of
varying size, overlapping where that does not saturate a pixel; most published figures are on it.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CANVAS = 50  # px, side of an image
PATIENCE = 10_000  # layouts tried for one image before the request is refused
SHRINK = (1.3, 0.1)  # mean and standard deviation, Pyro's form
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049  # of IDX files with three axes and with one

Bytes = NDArray[np.uint8]
Split = Literal["train", "test"]


class Placed(NamedTuple):
    """A digit on the canvas."""

    which: int  # among the digits that were drawn from
    x: float  # px from the left edge, middle of what it covers
    y: float  # px from the upper edge


class Composed(NamedTuple):
    """Images and what they show."""

    image: Bytes  # [n, 50, 50]
    counts: NDArray[np.int64]  # [n] digits that each shows
    placed: list[list[Placed]]  # those digits, n lists


class DataError(ValueError):
    """Data that cannot be used; the message says what is missing and what to do."""


def read_digits(split: Split, folder: str | Path | None = None) -> Bytes:
    """The digits of MNIST, `[m, 28, 28]`.

    Args:
        split: the 60,000 for training or the 10,000 for testing.
        folder: with the IDX files, gzipped as they are published; `$AIR_DATA/mnist` by default.

    Raises:
        DataError: the file is missing, or does not hold images in IDX format.
    """
    return _read_idx("images-idx3", IMAGES_MAGIC, split, folder)


def read_labels(split: Split, folder: str | Path | None = None) -> NDArray[np.int64]:
    """Which digits those of `read_digits` are, `[m]`; arguments and errors are its own."""
    return _read_idx("labels-idx1", LABELS_MAGIC, split, folder).astype(np.int64)


def _read_idx(kind: str, magic: int, split: Split, folder: str | Path | None) -> Bytes:
    name = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte.gz"
    if folder is None:
        root = os.environ.get("AIR_DATA")
        if not root:
            raise DataError(f"AIR_DATA is not set: set it to a folder with MNIST's mnist/{name}")
        folder = Path(root) / "mnist"
    path = Path(folder) / name
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); put MNIST's {name} there") from None
    size = 4 * (1 + magic % 256)  # bytes of the header: the last of the magic's says how many axes
    header = np.frombuffer(content[:size].ljust(size, b"\0"), dtype=">i4")
    found, *shape = (int(number) for number in header)
    if found != magic or len(content) != size + math.prod(shape):
        raise DataError(f"{path}: is not a whole IDX file of {kind}; copy MNIST's {name} again")
    return np.frombuffer(content, dtype=np.uint8, offset=size).reshape(shape)


def separate_digits(
    digits: Bytes, counts: Sequence[int], n: int, random: np.random.Generator
) -> Composed:
    """The paper's form: digits of their own size, whose bounding boxes do not overlap.

    Places are uniform among those that fit.

    Args:
        digits: `[m, 28, 28]` to draw from.
        counts: how many an image shows, each as likely.
        n: images.
        random: numbers.

    Raises:
        DataError: so many digits find no room.
    """
    inks = [_ink(digit) for digit in digits]

    def draw(count: int) -> tuple[Bytes, list[Placed]] | None:
        taken = np.zeros((CANVAS, CANVAS), dtype=bool)
        canvas = np.zeros((CANVAS, CANVAS), dtype=np.uint8)
        placed = []
        for _ in range(count):
            index = int(random.integers(len(inks)))
            ink = inks[index]
            height, width = ink.shape
            top, left = random.integers(CANVAS + 1 - height), random.integers(CANVAS + 1 - width)
            box = np.s_[top : top + height, left : left + width]
            if taken[box].any():
                return None
            taken[box] = True
            canvas[box] = ink
            placed.append(Placed(index, left + width / 2, top + height / 2))
        return canvas, placed

    return _compose(draw, counts, n, random)


def shrunk_digits(
    digits: Bytes, counts: Sequence[int], n: int, random: np.random.Generator
) -> Composed:
    """Pyro's form: digits shrunk by N(1.3, 0.1), redrawn when a pixel of their sum exceeds 255.

    As `pyro.contrib.examples.multi_mnist` has it: a crude test, which lets digits overlap where
    they are grey. Arguments and errors are those of `separate_digits`.
    """

    def draw(count: int) -> tuple[Bytes, list[Placed]] | None:
        canvas = np.zeros((CANVAS, CANVAS), dtype=np.int64)
        placed = []
        for _ in range(count):
            index = int(random.integers(len(digits)))
            digit = digits[index]
            side = int(len(digit) / random.normal(*SHRINK))
            small = np.asarray(Image.fromarray(digit).resize((side, side)))
            top, left = random.integers(CANVAS - side, size=2)
            canvas[top : top + side, left : left + side] += small
            placed.append(Placed(index, left + side / 2, top + side / 2))
        return None if canvas.max() > 255 else (canvas.astype(np.uint8), placed)

    return _compose(draw, counts, n, random)


def _compose(
    draw: Callable[[int], tuple[Bytes, list[Placed]] | None],
    counts: Sequence[int],
    n: int,
    random: np.random.Generator,
) -> Composed:
    """Draws each image anew until its layout is allowed; its count stays, so none gets rarer."""
    images = np.empty((n, CANVAS, CANVAS), dtype=np.uint8)
    placed = []
    count = random.choice(np.asarray(counts, dtype=np.int64), size=n)
    for i in range(n):
        for _ in range(PATIENCE):
            drawn = draw(int(count[i]))
            if drawn is not None:
                break
        else:
            raise DataError(
                f"{count[i]} digits find no room on {CANVAS}x{CANVAS} px: ask for fewer"
            )
        images[i] = drawn[0]
        placed.append(drawn[1])
    return Composed(images, count, placed)


def _ink(digit: Bytes) -> Bytes:
    """The smallest box that holds all that is not black."""
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
