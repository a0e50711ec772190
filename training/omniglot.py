"""Omniglot: handwritten characters of fifty alphabets (section 3.2; Lake et al., 2015).

The background set is what is learned from, the evaluation set what is measured on: the two share no
alphabet. Characters are white on black, as digits are, and fill the canvas of the 2D experiments as
they fill the paper that they were drawn on.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.digits import CANVAS, Bytes, DataError, Split

FILES = {"train": "images_background.npz", "test": "images_evaluation.npz"}

Bools = NDArray[np.bool_]


def read_drawings(split: Split, folder: str | Path | None = None) -> Bools:
    """The ink of all drawings of a set, `[m, 105, 105]`, characters in order.

    Args:
        split: the 964 characters to learn from, or the 659 to measure on; 20 drawings each.
        folder: with the two files, whose `images` say where there is paper: bool
            `[characters, 20, 105, 105]`. `$AIR_DATA/omniglot` by default.

    Raises:
        DataError: the file is missing, or does not hold such images.
    """
    name = FILES[split]
    if folder is None:
        root = os.environ.get("AIR_DATA")
        if not root:
            raise DataError(f"AIR_DATA is not set: set it to a folder with omniglot/{name}")
        folder = Path(root) / "omniglot"
    path = Path(folder) / name
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            paper = file["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); put Omniglot's {name} there") from None
    if paper.dtype != np.bool_ or paper.ndim != 4 or not paper.size:
        raise DataError(
            f"{path}: holds {paper.dtype} {list(paper.shape)}, expected images "
            "[characters, drawings, rows, columns] that are true where there is paper"
        )
    return ~paper.reshape(-1, *paper.shape[2:])


def choose(drawings: Bools, n: int, random: np.random.Generator) -> Bools:
    """`n` drawings in random order, none of them twice.

    Raises:
        DataError: there are not so many.
    """
    if n > len(drawings):
        raise DataError(f"there are {len(drawings):,} drawings of characters: ask for fewer")
    return drawings[random.permutation(len(drawings))[:n]]


def on_canvas(drawings: Bools) -> Bytes:
    """Drawings `[n, rows, columns]` as images `[n, 50, 50]`: of each pixel, the share of ink."""
    images = np.empty((len(drawings), CANVAS, CANVAS), dtype=np.uint8)
    for image, ink in zip(images, drawings, strict=True):
        full = Image.fromarray(np.where(ink, 255, 0).astype(np.uint8))
        image[:] = np.asarray(full.resize((CANVAS, CANVAS), Image.Resampling.BOX))
    return images
