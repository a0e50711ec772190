"""The image likelihood of appendix H.3."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from inference.likelihood import Likelihood, blurred


def test_without_blur_each_value_is_gaussian(generator: torch.Generator) -> None:
    image, picture = torch.rand(2, 4, 3, 5, 6, generator=generator)
    found = Likelihood(std=0.2).log_prob(image, picture)
    expected = norm.logpdf(image.numpy(), picture.numpy(), 0.2).sum(axis=(1, 2, 3))
    assert found.numpy() == pytest.approx(expected, rel=1e-5)


def test_the_blur_is_a_gaussian_filter(generator: torch.Generator) -> None:
    image = torch.rand(2, 3, 24, 20, generator=generator)
    found = blurred(image, 1.5)
    expected = gaussian_filter(
        image.double().numpy(), 1.5, axes=(2, 3), mode="nearest", radius=math.ceil(3 * 1.5)
    )
    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_one_image_meets_many_pictures(generator: torch.Generator) -> None:
    image, picture = (
        torch.rand(2, 3, 8, 8, generator=generator),
        torch.rand(2, 5, 3, 8, 8, generator=generator),
    )
    likelihood = Likelihood(std=0.3, blur=1.0)
    together = likelihood.log_prob(image[:, None], picture)
    alone = torch.stack([likelihood.log_prob(image, picture[:, s]) for s in range(5)], dim=1)
    torch.testing.assert_close(together, alone)


def test_the_blur_gives_a_gradient_to_what_is_drawn_beside_its_place() -> None:
    """Two dots that do not touch: only blurred does the picture's dot feel the image's."""

    def dot(x: torch.Tensor) -> torch.Tensor:
        column = torch.arange(24.0)
        row = torch.exp(-((column - x) ** 2))
        return row.expand(1, 1, 24, 24)

    pulls = []
    for blur in (0.0, 3.0):
        x = torch.tensor(7.0, requires_grad=True)
        Likelihood(std=0.3, blur=blur).log_prob(dot(torch.tensor(15.0)), dot(x)).sum().backward()
        assert x.grad is not None
        pulls.append(float(x.grad))
    assert abs(pulls[0]) < 1e-6
    assert pulls[1] > 0.1


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": math.nan}, {"blur": -1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Likelihood\.(std|blur) is"):
        Likelihood(**wrong)
