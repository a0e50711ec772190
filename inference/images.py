"""From the bytes of an image file to the network's input, or to a sentence saying why not.

Whatever the file holds becomes opaque 8-bit RGB, upright, cropped about its centre to the camera's
shape and scaled to the network's size. Colour profiles are ignored.
"""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")
SHAPE_TOLERANCE = 0.01  # of the ratio of width to height; a crop by less is not worth a warning

# We refuse by our own limit, before decoding; Pillow's would warn on standard error first.
Image.MAX_IMAGE_PIXELS = None


class ImageError(ValueError):
    """Bytes that cannot be used as a picture; the message says why and what to do.

    Args:
        kind: what is wrong, for programs.
        message: the same for people.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


Kind = Literal["empty", "too-many-bytes", "too-many-pixels", "not-an-image", "damaged"]


class Rectangle(NamedTuple):
    """A rectangle in px from the top left corner of the upright original picture."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """A picture as the network takes it, and how it came from the original."""

    pixels: Tensor  # [3, H, W] float32 in [0, 1]
    width: int  # px, of the upright original
    height: int  # px
    crop: Rectangle  # what of the original the pixels show
    sha256: str  # of the file's bytes
    warnings: tuple[str, ...]
    decode_ms: float = 0.0  # how long all this took


@dataclass(frozen=True)
class Decoder:
    """Decodes image files for one network; safe to use from several threads.

    Args:
        height: of the network's input, px.
        width: of the network's input, px.
        background: RGB in [0, 1] that shows through transparent pixels.
        max_bytes: of a file.
        max_pixels: of a picture.
    """

    height: int
    width: int
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    max_bytes: int = 10 * 2**20
    max_pixels: int = 40_000_000

    def decode(self, data: bytes) -> Picture:
        """Decodes a PNG, JPEG or WebP file.

        Raises:
            ImageError: the bytes are not such a file, are damaged, or exceed a limit.
        """
        started = time.perf_counter()
        self._check_bytes(data)
        opened = _open(data)
        width, height = opened.size
        if width * height > self.max_pixels:
            raise ImageError(
                "too-many-pixels",
                f"the image has {width} x {height} = {width * height / 1e6:.1f} million pixels, "
                f"at most {self.max_pixels / 1e6:g} million are taken; scale it down "
                f"(the network looks at {self.width} x {self.height})",
            )
        warnings = []
        # A JPEG with several pictures (MPO, of many telephones) is a photo with its previews.
        if getattr(opened, "n_frames", 1) > 1 and opened.format in ("PNG", "WEBP"):
            warnings.append(
                "The image is animated: only its first frame was used. Send a still image."
            )
        image, more = self._rgb(opened)
        crop, shape = self._crop(image)
        pixels = self._resize(image, crop)
        return Picture(
            torch.from_numpy(np.moveaxis(np.asarray(pixels), -1, 0).copy()).float().div_(255.0),
            *image.size,
            crop,
            hashlib.sha256(data).hexdigest(),
            (*warnings, *more, *shape),
            1e3 * (time.perf_counter() - started),
        )

    def _check_bytes(self, data: bytes) -> None:
        if not data:
            raise ImageError("empty", "the image is empty (0 bytes); send the file's content")
        if len(data) > self.max_bytes:
            raise ImageError(
                "too-many-bytes",
                f"the image has {len(data)} bytes, at most {self.max_bytes} are taken; "
                f"scale it down (the network looks at {self.width} x {self.height} pixels) "
                "or send a JPEG",
            )

    def _rgb(self, image: Image.Image) -> tuple[Image.Image, list[str]]:
        """The upright 8-bit picture of an opened file, RGB or RGBA, and warnings."""
        warnings = []
        try:
            image.load()
        except Exception as error:  # decoders fail in many ways, all by the file's fault
            raise ImageError(
                "damaged",
                f"the {image.format} image is truncated or damaged ({_reason(error)}); "
                "send it again, completely",
            ) from None
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:  # as above, in the metadata
            warnings.append("The image's EXIF data are damaged: its orientation was not applied.")
        image = _eight_bits(image)
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return (image if image.mode == mode else image.convert(mode)), warnings

    def _crop(self, image: Image.Image) -> tuple[Rectangle, list[str]]:
        """The largest centred rectangle of the network's shape, and warnings."""
        width, height = image.size
        wanted = self.width / self.height
        ratio = width / height / wanted
        kept_width, kept_height = min(width, height * wanted), min(height, width / wanted)
        crop = Rectangle(
            (width - kept_width) / 2, (height - kept_height) / 2, kept_width, kept_height
        )
        warnings = []
        if abs(ratio - 1.0) > SHAPE_TOLERANCE:
            warnings.append(
                f"The image is {width} x {height}; the camera of this model has the shape "
                f"{self.width}:{self.height}: the image was cropped about its centre to "
                f"{kept_width:.0f} x {kept_height:.0f}. Poses are right only if the camera's field "
                "of view fits the cropped image."
            )
        if kept_width < self.width - 0.5:
            warnings.append(
                f"The image was enlarged to the network's {self.width} x {self.height} pixels "
                f"from {kept_width:.0f} x {kept_height:.0f}: expect less precision. "
                "Send a larger one."
            )
        return crop, warnings

    def _resize(self, image: Image.Image, crop: Rectangle) -> Image.Image:
        """The opaque picture at the network's size."""
        # A camera's pixel gathers light over its area, and so does the box filter. Enlarging
        # with it would repeat pixels, and its steps would look like edges.
        enlarge = crop.width < self.width
        method = Image.Resampling.BILINEAR if enlarge else Image.Resampling.BOX
        box = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
        small = image.resize((self.width, self.height), method, box)
        if small.mode == "RGB":
            return small
        # Pillow weighs colours by their opacity in between, so that this may come last, when
        # there are few pixels.
        red, green, blue = (round(255 * value) for value in self.background)
        ground = Image.new("RGBA", small.size, (red, green, blue, 255))
        ground.alpha_composite(small)
        return ground.convert("RGB")


def _open(data: bytes) -> Image.Image:
    """Reads the header."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # decoders fail in many ways, all by the file's fault
        found = _guess(data)
        if found in FORMATS:
            raise ImageError(
                "damaged",
                f"the {found} image is damaged at its beginning ({_reason(error)}); "
                "send it again, completely",
            ) from None
        raise ImageError(
            "not-an-image",
            f"the {len(data)} bytes are {found}, not a PNG, JPEG or WebP image; "
            "convert it to one of these",
        ) from None


def _guess(data: bytes) -> str:
    """What the bytes start like: one of FORMATS, or words for a message."""
    starts = {
        b"\x89PNG": "PNG",
        b"\xff\xd8\xff": "JPEG",
        b"GIF8": "a GIF image",
        b"BM": "a BMP image",
        b"II*\0": "a TIFF image",
        b"MM\0*": "a TIFF image",
        b"%PDF": "a PDF document",
        b"<": "HTML, XML or SVG text",
        b"{": "JSON text",
    }
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    found = (name for start, name in starts.items() if data.startswith(start))
    return next(found, "of no known kind")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits as their upper 8; Pillow would clip them."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.dtype != np.uint16:
        values = values.clip(0, 65535).astype(np.uint16)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opaque = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, opaque))
    return grey


def _reason(error: Exception) -> str:
    """The decoder's own words, in one line and without the address of a buffer."""
    words = str(error).split("<_io.BytesIO")[0].strip() or type(error).__name__
    return " ".join(words.split())
