import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from inference.images import Decoder, ImageError, Rectangle
from renderer import SceneSpec, open_renderer
from renderer.prior import sample

Encode = Callable[..., bytes]
DECODER = Decoder(64, 64)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Some scene, 256 x 256."""
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 1, generator=torch.Generator().manual_seed(8))
    renderer = open_renderer(spec, height=256, width=256, backend="raycast")
    return Image.fromarray(renderer.render_bytes(scene)[0].numpy())


def grey_of(data: bytes) -> torch.Tensor:
    """The middle pixel, in grey levels."""
    return DECODER.decode(data).pixels[:, 32, 32] * 255


def png(width: int, height: int, bits: int, data: bytes) -> bytes:
    """A PNG of RGB pixels, written by hand."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats(photo: Image.Image, encode: Encode, kind: str) -> None:
    picture = DECODER.decode(encode(photo, kind))
    wanted = np.asarray(photo).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3)) / 255
    difference = picture.pixels - torch.from_numpy(wanted).permute(2, 0, 1)
    assert difference.abs().mean() < (0.002 if kind == "PNG" else 0.02)
    assert (picture.width, picture.height) == (256, 256)
    assert picture.crop == Rectangle(0, 0, 256, 256)
    assert picture.warnings == ()


def test_network_size_stays_as_it_is(encode: Encode) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = DECODER.decode(encode(Image.fromarray(values))).pixels
    assert torch.equal((pixels * 255).round().byte().permute(1, 2, 0), torch.from_numpy(values))


def test_crop_about_the_centre(encode: Encode) -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("lime", (100, 0, 200, 100))
    picture = DECODER.decode(encode(image))
    assert picture.crop == Rectangle(100, 0, 100, 100)
    assert torch.equal(picture.pixels[:, 5, 60], torch.tensor([0.0, 1.0, 0.0]))
    assert picture.pixels[0].max() == 0
    assert len(picture.warnings) == 1
    assert "cropped about its centre to 100 x 100" in picture.warnings[0]
    assert "300 x 100" in picture.warnings[0]


def test_tall_picture_for_a_wide_camera(encode: Encode) -> None:
    picture = Decoder(48, 64).decode(encode(Image.new("RGB", (400, 600))))
    assert picture.crop == Rectangle(0, 150, 400, 300)


def test_almost_the_shape_needs_no_warning(encode: Encode) -> None:
    assert DECODER.decode(encode(Image.new("RGB", (201, 200)))).warnings == ()


def test_small_pictures_are_enlarged_with_a_warning(encode: Encode) -> None:
    (warning,) = DECODER.decode(encode(Image.new("RGB", (20, 20)))).warnings
    assert "enlarged" in warning
    picture = DECODER.decode(encode(Image.new("RGB", (1, 1), "white")))
    assert torch.equal(picture.pixels, torch.ones(3, 64, 64))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(encode: Encode, orientation: int) -> None:
    stored = Image.new("RGB", (128, 64))
    stored.paste("white", (0, 0, 32, 32))  # top left, as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Decoder(64, 64).decode(encode(stored, exif=exif))
    turned = orientation >= 5
    assert (picture.width, picture.height) == ((64, 128) if turned else (128, 64))
    # Where the stored top left corner is shown, by the EXIF standard.
    corners = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}
    whole = Decoder(128, 64) if turned else Decoder(64, 128)
    pixels = whole.decode(encode(stored, exif=exif)).pixels[0]
    row, column = corners[orientation]
    assert pixels[0 if row == "t" else -1, 0 if column == "l" else -1] == 1
    assert (pixels == 1).float().mean() == 1 / 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's; the picture is taken all the same
def test_damaged_exif_is_no_reason_to_refuse(encode: Encode) -> None:
    data = encode(Image.new("RGB", (64, 64)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xffgarbage")
    assert DECODER.decode(data).pixels.shape == (3, 64, 64)


def test_transparent_pixels_show_the_background(encode: Encode) -> None:
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    assert grey_of(encode(image)).tolist() == [0, 0, 0]
    half = Image.new("RGBA", (64, 64), (255, 255, 255, 128))
    assert grey_of(encode(half)).tolist() == [128, 128, 128]
    table = Decoder(64, 64, background=(0.2, 0.4, 0.6))
    colour = table.decode(encode(image)).pixels[:, 0, 0] * 255
    assert colour.tolist() == [51, 102, 153]
    assert grey_of(encode(Image.new("LA", (64, 64), (200, 0)))).tolist() == [0, 0, 0]


def test_palette_with_and_without_transparency(encode: Encode) -> None:
    image = Image.new("RGB", (64, 64), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert grey_of(encode(image)).tolist() == [10, 200, 30]
    colour = image.getpixel((0, 0))
    assert grey_of(encode(image, transparency=colour)).tolist() == [0, 0, 0]


def test_sixteen_bit_grey_is_scaled_not_clipped(encode: Encode) -> None:
    image = Image.fromarray(np.full((64, 64), 0x80FF, dtype=np.uint16))
    assert grey_of(encode(image)).tolist() == [128, 128, 128]


def test_sixteen_bit_grey_with_a_transparent_level(encode: Encode) -> None:
    values = np.full((64, 64), 0x80FF, dtype=np.uint16)
    values[:, :32] = 0x80FE
    data = encode(Image.fromarray(values), transparency=0x80FE)
    assert (DECODER.decode(data).pixels[0, 0, [0, 63]] * 255).tolist() == [0, 128]


def test_transparent_pixels_lend_their_colour_to_no_neighbour(encode: Encode) -> None:
    image = Image.new("RGBA", (128, 128), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 63, 128))  # the edge is amid a pixel of the small one
    white = Decoder(64, 64, background=(1.0, 1.0, 1.0)).decode(encode(image)).pixels * 255
    assert white[:, 0, 30].tolist() == [0, 0, 255]
    assert white[:, 0, 31].tolist() == pytest.approx([128, 128, 255], abs=2)
    assert white[:, 0, 32].tolist() == [255, 255, 255]


def test_sixteen_bit_colour() -> None:
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8000, 0) * 64
    assert grey_of(png(64, 64, 16, zlib.compress(row * 64))).tolist() == [255, 128, 0]


def test_grey_black_and_white_and_cmyk(encode: Encode) -> None:
    assert grey_of(encode(Image.new("L", (64, 64), 77))).tolist() == [77, 77, 77]
    assert grey_of(encode(Image.new("1", (64, 64), 1))).tolist() == [255, 255, 255]
    red = grey_of(encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"))
    assert red[0] > 250 and red[1:].max() < 5


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_shows_its_first_frame(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    picture = DECODER.decode(data)
    assert picture.pixels.min() == 1
    assert len(picture.warnings) == 1
    assert "animated" in picture.warnings[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_truncated(photo: Image.Image, encode: Encode, kind: str, share: float) -> None:
    data = encode(photo, kind)
    with pytest.raises(ImageError, match=r"damaged.*send it again") as caught:
        DECODER.decode(data[: max(int(share * len(data)), 16)])
    assert caught.value.kind == "damaged"
    assert "BytesIO" not in str(caught.value)


def test_flipped_bytes_never_end_in_another_error(photo: Image.Image, encode: Encode) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP"):
        data = np.frombuffer(encode(photo, kind), dtype=np.uint8)
        for _ in range(60):
            broken = data.copy()
            where = random.integers(0, len(data), 3)
            broken[where] = random.integers(0, 256, 3)
            with suppress(ImageError):  # any other error fails the test
                DECODER.decode(broken.tobytes())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"hello, world", "of no known kind"),
        (b"GIF89a" + bytes(20), "a GIF image"),
        (b"<svg></svg>", "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0", "of no known kind"),
    ],
)
def test_not_an_image(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        DECODER.decode(data)
    assert caught.value.kind == "not-an-image"
    assert "PNG, JPEG or WebP" in str(caught.value)


def test_other_formats_that_pillow_knows_are_refused(encode: Encode) -> None:
    for kind in ("GIF", "BMP", "TIFF"):
        with pytest.raises(ImageError, match=f"a {kind} image"):
            DECODER.decode(encode(Image.new("RGB", (64, 64)), kind))


def test_limits(encode: Encode) -> None:
    with pytest.raises(ImageError, match="empty") as caught:
        DECODER.decode(b"")
    assert caught.value.kind == "empty"
    small = Decoder(64, 64, max_bytes=1000, max_pixels=100 * 100)
    with pytest.raises(ImageError, match="at most 1000") as caught:
        small.decode(bytes(1001))
    assert caught.value.kind == "too-many-bytes"
    with pytest.raises(ImageError, match="101 x 100") as caught:
        small.decode(encode(Image.new("RGB", (101, 100))))
    assert caught.value.kind == "too-many-pixels"


def test_a_bomb_is_refused_by_its_header_alone() -> None:
    with pytest.raises(ImageError, match=r"2500\.0 million pixels"):
        DECODER.decode(png(50_000, 50_000, 8, b"never read"))


def test_a_photo_with_previews_is_no_animation() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black")]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    picture = DECODER.decode(file.getvalue())
    assert picture.warnings == ()
    assert picture.pixels.min() > 0.98
