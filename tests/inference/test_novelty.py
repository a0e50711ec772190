"""What a scene leaves unexplained is seen where it is, and noise and exposure are not novel."""

import torch

from inference.estimate import Estimate
from inference.likelihood import blurred
from inference.novelty import BLUR, SIDE, STRIDE, Limits, doubt_of, explained, worst_block
from renderer.scene import Scene


def picture() -> torch.Tensor:
    x = torch.linspace(0.2, 0.8, 128)
    return (x[:, None] + 0 * x).expand(1, 3, 128, 128).clone()


def test_a_small_object_outweighs_noise_and_exposure(generator: torch.Generator) -> None:
    drawn = picture()
    noisy = (1.07 * drawn + 0.02 * torch.randn(drawn.shape, generator=generator)).clamp(0, 1)
    foreign = drawn.clone()
    foreign[..., 60:66, 60:66] += 0.3  # a thousandth of the picture's error is there
    assert float(worst_block(foreign, drawn)) > 20 * float(worst_block(noisy, drawn))
    assert float((foreign - drawn).square().mean()) < float((noisy - drawn).square().mean())
    assert float(worst_block(drawn, drawn)) < 1e-9


def test_blocks_are_as_large_a_part_of_any_picture() -> None:
    drawn, foreign = picture(), picture()
    foreign[..., 40:60, 40:60] = 1.0
    halves = [torch.nn.functional.avg_pool2d(value, 2) for value in (foreign, drawn)]
    ratio = float(worst_block(*halves) / worst_block(foreign, drawn))
    assert 0.8 < ratio < 1.25


def test_explained_is_the_share_of_what_objects_change() -> None:
    table, image = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    image[:, :, :4] = 0.5
    half = image.clone()
    half[:, :, :2] = 0.0
    occupied = torch.tensor([True, True])
    assert explained(image, image, table, occupied).tolist() == [1.0, 1.0]
    assert explained(image, half, table, occupied).tolist() == [0.5, 0.5]
    assert explained(image, table, table, occupied).tolist() == [0.0, 0.0]
    assert explained(image, table, table, ~occupied).tolist() == [0.5, 0.5]
    assert explained(table, table, table, occupied).tolist() == [0.0, 0.0]


def test_doubt_is_of_the_count_and_of_what_is_there() -> None:
    scene = Scene.empty(2, 2)
    scene.presence[1, 0] = True
    sure, torn = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    classes = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    estimate = Estimate(
        scene,
        torch.stack([sure, torn]),
        torch.zeros(2, 2),
        classes.expand(2, 2, 2),
        torch.eye(2).expand(2, 2, 2, 2),
        torch.ones(2, 2),
        torch.ones(2),
    )
    torch.testing.assert_close(
        doubt_of(estimate), torch.tensor([0.0, 2.0]) * torch.tensor(2.0).log()
    )


def test_either_limit_makes_a_picture_novel() -> None:
    limits = Limits(block=0.01, doubt=0.5)
    novelty = limits.novelty(torch.tensor([0.005, 0.02, 0.0]), torch.tensor([0.1, 0.1, 1.0]))
    torch.testing.assert_close(novelty, torch.tensor([0.5, 2.0, 2.0]))


def test_blocks_are_means_over_squares(generator: torch.Generator) -> None:
    image, drawn = torch.rand(2, 2, 3, 128, 96, generator=generator).unbind()
    exposure = (image * drawn).sum((1, 2, 3)) / drawn.square().sum((1, 2, 3))
    left = blurred(image / exposure.clamp(0.8, 1.25)[:, None, None, None] - drawn, BLUR)
    pooled = torch.nn.functional.avg_pool2d(left.square().sum(1), SIDE, STRIDE)
    torch.testing.assert_close(worst_block(image, drawn), pooled.flatten(1).amax(1))
