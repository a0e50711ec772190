"""Exposure, blur, noise and JPEG, on any device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from renderer import SceneSpec, open_renderer
from renderer.nuisance import BLUR_RADIUS, as_jpeg, gaussian_blur, photograph, spoil
from renderer.prior import sample
from renderer.variation import Noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return str(request.param)


def test_each_picture_is_blurred_by_its_own_gaussian(device: str) -> None:
    pictures = torch.rand(3, 2, 9, 11, generator=seeded())
    sigma = torch.tensor([0.0, 0.7, 2.0])
    found = gaussian_blur(pictures.to(device), sigma.to(device)).cpu()
    offset = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    for picture, width, blurred in zip(pictures.numpy(), sigma.tolist(), found, strict=True):
        kernel = np.exp(-0.5 * (offset / max(width, 1e-2)) ** 2)
        for channel, expected in zip(picture, blurred.numpy(), strict=True):
            for axis in (0, 1):
                channel = correlate1d(channel, kernel / kernel.sum(), axis=axis, mode="nearest")
            np.testing.assert_allclose(channel, expected, atol=1e-5)


def test_grain_and_exposure_are_as_strong_as_asked_for(device: str) -> None:
    grey = torch.full((8, 64, 64, 3), 100, dtype=torch.uint8, device=device)
    noise = Noise(sensor_std=(0.02, 0.02), gain=(1.2, 1.2))
    first, again, other = (spoil(grey, noise, generator=seeded(n)) for n in (0, 0, 1))
    assert first.device == grey.device and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.float().mean()) == pytest.approx(120, abs=0.2)
    assert float(first.float().std()) == pytest.approx(0.02 * 255, rel=0.02)
    exposure = Noise(gain=(0.5, 2.0))
    levels = spoil(grey, exposure, generator=seeded()).float().mean(dim=(1, 2, 3))
    assert 50 <= levels.min() < levels.max() <= 200


def test_blur_and_exposure_stay_on_their_device() -> None:
    # `meta` stands for a card: it mixes with no other device, and cannot be looked into.
    grey = torch.empty(2, 8, 8, 3, dtype=torch.uint8, device="meta")
    found = spoil(grey, Noise(blur_px=(0.0, 2.0), gain=(0.9, 1.1)), generator=seeded())
    assert found.device == grey.device and found.shape == grey.shape


def test_jpeg_loses_what_its_quality_says() -> None:
    spec = SceneSpec.load("tabletop")
    drawing = open_renderer(spec, height=64, width=64)
    picture = drawing.render_bytes(sample(spec, 1, generator=seeded(3)))
    quality = torch.tensor([100, 75, 30, 5])
    found = as_jpeg(picture.expand(4, -1, -1, -1), quality)
    lost = (found.float() - picture.float()).square().mean(dim=(1, 2, 3)).tolist()
    assert lost == sorted(lost) and 0 < lost[0] < 5 < 50 < lost[3]
    varied = spoil(picture.expand(8, -1, -1, -1), Noise(jpeg_quality=(5, 100)), generator=seeded())
    assert len({one.numpy().tobytes() for one in varied}) > 4


def test_photographs_of_a_card_are_those_of_the_host() -> None:
    spec = SceneSpec.load("tabletop-varied")
    spec = spec.model_copy(update={"nuisance": spec.nuisance.model_copy(update={"noise": None})})
    host = open_renderer(spec, height=32, width=32, backend="raycast")
    scene = sample(spec, 8, generator=seeded())
    card: Any = SimpleNamespace(device=torch.device("cuda"), render=host.render, spec=spec)
    found = photograph(card, scene, generator=seeded(1))
    assert torch.equal(found, photograph(host, scene, generator=seeded(1)))
    assert not torch.equal(found, photograph(host, scene, generator=seeded(2)))


def test_where_nothing_varies_photographs_are_pictures() -> None:
    spec = SceneSpec.load("objects")
    drawing = open_renderer(spec, height=32, width=32)
    scene, generator = sample(spec, 4, generator=seeded()), seeded()
    before = generator.get_state()
    found = photograph(drawing, scene, generator=generator)
    assert torch.equal(found, drawing.render_bytes(scene))
    assert torch.equal(generator.get_state(), before)
