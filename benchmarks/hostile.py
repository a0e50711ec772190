"""Pictures that mean harm, and odd ones that do not."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

LONGEST = 9999  # bytes, of a picture that is worth damaging over and over


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def _png(
    width: int, height: int, rows: bytes, *more: bytes, depth: int = 8, kind: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [
        _chunk(b"IHDR", header),
        *more,
        _chunk(b"IDAT", zlib.compress(rows)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil.py", "raise SystemExit")
    return file.getvalue()


def usable() -> Iterator[tuple[str, bytes]]:
    """Pictures of every kind that cameras, telephones and editors make."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))

    def save(image: Image.Image, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    yield "PNG", save(colours, "PNG")
    yield "progressive JPEG", save(colours, "JPEG", progressive=True)
    yield "CMYK JPEG", save(colours.convert("CMYK"), "JPEG")
    yield "grey JPEG", save(colours.convert("L"), "JPEG")
    yield "lossless WebP", save(colours, "WEBP", lossless=True)
    yield "alpha", save(colours.convert("RGBA"), "PNG")
    yield "alpha WebP", save(colours.convert("RGBA"), "WEBP")
    yield "grey with alpha", save(colours.convert("LA"), "PNG")
    yield "palette", save(colours.quantize(16), "PNG")
    yield "palette with a transparent colour", save(colours.quantize(16), "PNG", transparency=3)
    yield "one bit", save(colours.convert("1"), "PNG")
    wide = Image.fromarray(rng.integers(0, 65536, (96, 96), dtype=np.uint16))
    yield "16 bits", save(wide, "PNG")
    rows = b"".join(b"\0" + bytes(6 * 96) for _ in range(96))
    yield "16 bits of each colour", _png(96, 96, rows, depth=16, kind=2)
    frames = [colours, colours.rotate(90)]
    yield "animated PNG", save(colours, "PNG", save_all=True, append_images=frames)
    yield "animated WebP", save(colours, "WEBP", save_all=True, append_images=frames)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"EXIF orientation {orientation}", save(colours, "JPEG", exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 99
    yield "EXIF orientation 99", save(colours, "JPEG", exif=exif)
    yield "colour profile of nonsense", save(colours, "JPEG", icc_profile=rng.bytes(3000))
    yield "one pixel", save(colours.resize((1, 1)), "PNG")
    yield "a line", save(colours.resize((5000, 1)), "PNG")
    yield "PNG and ZIP at once", save(colours, "PNG") + _zipped()
    yield "JPEG and HTML at once", save(colours, "JPEG") + b"<script>alert(1)</script>"
    yield "unknown chunk", _png(96, 96, (b"\0" + bytes(96)) * 96, _chunk(b"abCd", b"x" * 1000))
    grey = (b"\0" + bytes(96)) * 96
    whole = _png(96, 96, grey)
    # No encoder makes these two, and every decoder takes them: what is missing is black.
    yield "half of the rows", _png(96, 96, grey[: len(grey) // 2])
    yield "chunk that says 4 GB", whole[:33] + b"\xff\xff\xff\xffIDAT" + whole[41:]
    text = PngImagePlugin.PngInfo()
    text.add_text("name", "../../etc/passwd\0; DROP TABLE")
    yield "evil text", save(colours, "PNG", pnginfo=text)


def unusable() -> Iterator[tuple[str, bytes]]:
    """Bombs, lies and fragments."""
    grey = (b"\0" + bytes(96)) * 96
    whole = _png(96, 96, grey)
    yield "bomb of pixels", _png(50_000, 50_000, b"")
    yield "bomb at the limit of the header", _png(2**31 - 1, 2**31 - 1, b"")
    yield "bomb of pixels that is one", _png(8000, 8000, bytes(64_000_000))
    text = _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(200_000_000)))
    yield "bomb of text", _png(96, 96, grey, text)
    yield "no width", _png(0, 96, b"")
    yield "no height", _png(96, 0, b"")
    yield "no rows", _png(96, 96, b"")
    yield "header twice as long as it says", whole[:16] + b"\0" * 4 + whole[16:]
    yield "depth that there is not", _png(96, 96, grey, depth=7)
    yield "colour type that there is not", _png(96, 96, grey, kind=5)
    yield "wrong checksum", whole[:29] + b"\0\0\0\0" + whole[33:]
    yield "not compressed", _png(96, 96, grey).replace(zlib.compress(grey), b"x" * 20)
    yield "PNG of no chunks", b"\x89PNG\r\n\x1a\n"
    yield "JPEG of no rows", b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x60\x01\x01\x11\x00\xff\xd9"
    yield "JPEG of markers", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1000
    yield "WebP that is too long", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + bytes(100)
    yield "WebP of nothing", b"RIFF\x04\0\0\0WEBP"
    nonsense = io.BytesIO()
    Image.new("L", (96, 96)).save(nonsense, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield "EXIF of nonsense", nonsense.getvalue()
    yield "GIF", b"GIF89a" + bytes(100)
    yield "TIFF", b"II*\0\x08\0\0\0" + bytes(100)
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(rm -rf /) run"
    yield "pickle", b"\x80\x04\x95\x0e\0\0\0\0\0\0\0\x8c\x08builtins\x94."
    yield "ZIP", _zipped()
    yield "zeros", bytes(10_000)


def corpus() -> list[bytes]:
    """What is damaged by `damaged`."""
    return [
        *(data for _, data in usable()),
        *(data for _, data in unusable() if len(data) <= LONGEST),
    ]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same with some of its bytes changed, moved, doubled or cut out."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place, length = rng.randrange(len(changed)), rng.randint(1, 16)
        match rng.randrange(4):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                changed[place : place + length] = rng.randbytes(length)
            case 2:
                del changed[place : place + length]
            case _:
                changed[place:place] = changed[place : place + length]
        changed = changed or bytearray(b"\0")
    return bytes(changed)
