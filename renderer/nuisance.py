"""What a sensor does to a picture: exposure, blur and noise, drawn anew for every picture."""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.spec import Noise

BLUR_RADIUS = 3  # px; kernels are cut off there


def spoil(pictures: Tensor, noise: Noise, *, generator: torch.Generator | None = None) -> Tensor:
    """Pictures as a sensor would have taken them.

    Args:
        pictures: `[B, H, W, 3]` uint8.
        noise: how much of what.
        generator: of random numbers, on the CPU. On another device the sensor's noise is drawn by
            one of that device's own, seeded by this one.

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
    return values.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


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
