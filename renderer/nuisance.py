"""Pictures as a camera would have taken them: drawn with another appearance, then spoiled.

What a renderer can draw (light, colours, where the camera is) is an `Appearance`; what happens to
pixels after that (exposure, blur, grain, JPEG) is done here, anew for every picture.
"""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from renderer.appearance import draw_appearance
from renderer.backend import Renderer
from renderer.scene import Scene
from renderer.variation import Noise

BLUR_RADIUS = 3  # px; kernels are cut off there


def photograph(
    renderer: Renderer, scene: Scene, *, generator: torch.Generator | None = None
) -> Tensor:
    """Pictures of scenes with all of the `nuisance:` of the renderer's spec.

    Args:
        renderer: draws them.
        scene: B scenes.
        generator: of random numbers, on the CPU; nothing is drawn from it where nothing varies.

    Returns:
        `[B, H, W, 3]` uint8, on the renderer's device.
    """
    nuisance = renderer.spec.nuisance
    appearance = draw_appearance(renderer.spec, len(scene), generator=generator)
    if renderer.device.type == "cpu":
        pictures = renderer.render_bytes(scene, appearance)
    else:  # `render_bytes` would bring them to the host
        drawn = renderer.render(scene, appearance)
        pictures = drawn.mul_(255.0).round_().byte().permute(0, 2, 3, 1)
    if nuisance.noise is None:
        return pictures
    return spoil(pictures, nuisance.noise, generator=generator)


def spoil(pictures: Tensor, noise: Noise, *, generator: torch.Generator | None = None) -> Tensor:
    """Pictures as a sensor would have taken them.

    Args:
        pictures: `[B, H, W, 3]` uint8.
        noise: how much of what.
        generator: of random numbers, on the CPU. On another device the sensor's noise is drawn by
            one of that device's own, seeded by this one. JPEG is written and read on the host,
            picture by picture, wherever they lie: half a millisecond each at 128 px.

    Returns:
        New pictures, `[B, H, W, 3]` uint8, on the same device.
    """
    batch, device = len(pictures), pictures.device
    blur, gain, std = (
        _uniform(least, greatest, batch, generator).to(device)
        for least, greatest in (noise.blur_px, noise.gain, noise.sensor_std)
    )
    values = pictures.permute(0, 3, 1, 2).float() * gain[:, None, None, None]
    if noise.blur_px[1] > 0:
        values = gaussian_blur(values, blur)
    if noise.sensor_std[1] > 0:
        if device.type != "cpu":
            seed = int(torch.randint(1 << 62, (), generator=generator))
            generator = torch.Generator(device).manual_seed(seed)
        grain = torch.randn(values.shape, generator=generator, device=device)
        values = values + grain * (255 * std)[:, None, None, None]
    spoiled = values.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    if noise.jpeg_quality is None:
        return spoiled
    least, greatest = noise.jpeg_quality
    quality = torch.randint(least, greatest + 1, (batch,), generator=generator)
    return as_jpeg(spoiled, quality)


def as_jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Pictures after they were written as JPEG and read again.

    Args:
        pictures: `[B, H, W, 3]` uint8.
        quality: `[B]`, of each, from 1 to 100 as libjpeg counts it.

    Returns:
        `[B, H, W, 3]` uint8 on the same device.
    """
    found = torch.empty(pictures.shape, dtype=torch.uint8)
    for target, picture, level in zip(found, pictures.cpu(), quality.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.contiguous().numpy()).save(file, "JPEG", quality=level)
        target[:] = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(
            target.shape
        )
    return found.to(pictures.device)


def gaussian_blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Blurs each of the pictures `[B, C, H, W]` with its own `sigma` `[B]` px."""
    batch, channels, height, width = pictures.shape
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1.0, device=sigma.device)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp_min(1e-2)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = pictures.reshape(1, batch * channels, height, width)
    padded = torch.nn.functional.pad(flat, (BLUR_RADIUS,) * 4, mode="replicate")
    groups = batch * channels
    rows = torch.nn.functional.conv2d(padded, kernel[:, None, None, :], groups=groups)
    return torch.nn.functional.conv2d(rows, kernel[:, None, :, None], groups=groups).view_as(
        pictures
    )


def _uniform(
    least: float, greatest: float, count: int, generator: torch.Generator | None
) -> Tensor:
    return least + (greatest - least) * torch.rand(count, generator=generator)
