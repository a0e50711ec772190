"""Render and compare, against a renderer: what the network got wrong, the picture puts right."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from inference.distributions import wrap
from inference.estimate import Estimate
from inference.hypotheses import alternatives, doubts
from inference.refine import Refined, Refinement, refine
from renderer import Renderer, Scene, SceneSpec, open_renderer
from renderer.jacobian import Drawing
from renderer.prior import sample

SIZE = 96
CUP, PAN, PLATE = 0, 1, 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture(scope="module")
def renderer(spec: SceneSpec) -> Iterator[Renderer]:
    one = open_renderer(spec, height=SIZE, width=SIZE, supersample=2)
    yield one
    one.close()


@pytest.fixture
def mend(spec: SceneSpec, renderer: Renderer) -> Callable[..., Refined]:
    """Refines a guess of what an image shows."""

    def mend(guess: Scene, image: Tensor, **options: float) -> Refined:
        estimate = estimate_of(spec, guess)
        return refine(spec, estimate, image, Drawing(renderer), Refinement(**options))

    return mend


def estimate_of(spec: SceneSpec, scene: Scene) -> Estimate:
    """What a network would say that takes each scene for the most probable one."""
    batch, slots = scene.presence.shape
    orders = torch.tensor(spec.symmetry_orders)[scene.identity]
    counts = 0.1 / slots * torch.ones(batch, slots + 1)
    counts[torch.arange(batch), scene.count] = 0.9
    classes = torch.nn.functional.one_hot(scene.identity, len(spec.objects)) * 0.7 + 0.1
    at_least = counts.flip(1).cumsum(1).flip(1)[:, 1:]
    return Estimate(
        scene,
        counts,
        at_least,
        classes,
        (0.02**2 * torch.eye(2)).expand(batch, slots, 2, 2),
        torch.where(orders == 0, math.inf, 0.1),
        torch.full((batch,), 0.02),
    )


def scene_of(*objects: tuple[int, float, float, float], azimuth: float = 0.2) -> Scene:
    """One scene: class, x, y and yaw of each object; the slots behind say where one more is."""
    scene = Scene.empty(1, 3)
    for slot, (c, x, y, yaw) in enumerate(objects):
        scene.presence[0, slot] = True
        scene.identity[0, slot] = c
        scene.position[0, slot] = torch.tensor([x, y])
        scene.yaw[0, slot] = yaw
    scene.azimuth[:] = azimuth
    return scene


def errors(found: Scene, true: Scene) -> tuple[Tensor, Tensor]:
    """Distances, m, and yaw errors, rad, of objects in the same slots; of cups and pans."""
    there = true.presence & (true.identity != PLATE)
    distance = (found.position - true.position).norm(dim=-1)
    return distance[true.presence], wrap(found.yaw - true.yaw).abs()[there]


# --- poses and camera ------------------------------------------------------------------------


def test_poses_and_camera_become_exact(
    spec: SceneSpec, renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    true = sample(spec, 8, generator=seeded(1))
    image = renderer.render(true)
    noise = seeded(2)
    guess = dataclasses.replace(
        true,
        position=true.position + 0.008 * torch.randn(8, 3, 2, generator=noise),
        yaw=true.yaw + 0.1 * torch.randn(8, 3, generator=noise),
        azimuth=true.azimuth + 0.01 * torch.randn(8, generator=noise),
    )
    found = mend(guess, image, steps=8)
    distance, yaw = errors(found.estimate.scene, true)
    assert distance.median() < 0.6e-3 and distance.quantile(0.9) < 3e-3
    assert yaw.median() < math.radians(0.6)
    azimuth = (found.estimate.scene.azimuth - true.azimuth).abs()
    assert azimuth.median() < math.radians(0.03)
    occupied = true.count > 0
    assert (found.error[occupied] < 0.2 * found.error_before[occupied]).float().mean() > 0.9
    assert found.curved.all()


def test_spreads_tell_near_from_far_and_turned_from_round(
    renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    true = scene_of((PAN, 0.0, -0.25, 0.4), (PAN, 0.0, 0.3, 0.4), (PLATE, -0.25, 0.0, 0.0))
    image = renderer.render(true)
    noisy = (image + 0.02 * torch.randn(image.shape, generator=seeded())).clamp(0, 1)
    found = mend(true, noisy).estimate
    near, far = (found.position_covariance[0, k].det() for k in (0, 1))
    assert 0 < near < far  # the farther pan has fewer pixels
    assert torch.isinf(found.yaw_std[0, 2]) and found.yaw_std[0, 0] < found.yaw_std[0, 1]
    assert 0 < found.azimuth_std[0] < 0.01


# --- other hypotheses ------------------------------------------------------------------------

# What the network said, and what is really there.
MISTAKES: dict[str, tuple[Scene, Scene]] = {
    "two cups read as one": (
        scene_of((CUP, 0.06, 0.01, 0.5)),
        scene_of((CUP, 0.02, 0.0, 3.0), (CUP, 0.115, 0.02, -0.2)),
    ),
    "one cup read as two": (
        scene_of((CUP, 0.02, 0.0, 0.5), (CUP, 0.12, 0.05, 2.0)),
        scene_of((CUP, 0.02, 0.0, 0.5)),
    ),
    "a plate overlooked": (
        scene_of((PAN, -0.2, -0.1, 1.0)),
        scene_of((PAN, -0.2, -0.1, 1.0), (PLATE, 0.2, 0.1, 0.0)),
    ),
    "a plate for a pan": (
        scene_of((CUP, 0.2, -0.1, 1.0), (PLATE, -0.1, 0.1, 0.0)),
        scene_of((CUP, 0.2, -0.1, 1.0), (PAN, -0.1, 0.1, 2.5)),
    ),
    "a cup turned round": (
        scene_of((CUP, -0.1, -0.2, 0.6 + math.pi)),
        scene_of((CUP, -0.1, -0.2, 0.6)),
    ),
    "a pan turned away": (
        scene_of((PAN, -0.1, -0.2, 2.0), (PLATE, 0.2, 0.2, 0.0)),
        scene_of((PAN, -0.1, -0.2, -0.6), (PLATE, 0.2, 0.2, 0.0)),
    ),
    "an object that is not there": (
        scene_of((CUP, 0.25, 0.2, 1.0), (PAN, -0.1, 0.0, 2.5)),
        scene_of((PAN, -0.1, 0.0, 2.5)),
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_mistakes_are_mended(
    what: str, noise: float, renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    guess, true = MISTAKES[what]
    image = renderer.render(true)
    image = (image + noise * torch.randn(image.shape, generator=seeded())).clamp(0, 1)
    found = mend(guess, image, steps=8)
    scene, estimate = found.estimate.scene, found.estimate
    assert found.error[0] < found.error_before[0]
    assert torch.equal(scene.presence, true.presence)  # present objects come first
    # Which of two is named first does not matter.
    best = min(
        itertools.permutations(range(int(true.count[0]))),
        key=lambda order: float(
            (scene.position[0, list(order)] - true.position[0, : len(order)]).norm()
        ),
    )
    order = torch.tensor([*best, *range(len(best), 3)])
    scene = scene.permute_slots(order)
    assert torch.equal(scene.identity[true.presence], true.identity[true.presence])
    distance, yaw = errors(scene, true)
    assert distance.max() < 3e-3 and (not len(yaw) or yaw.max() < 0.1)
    # What it says of itself goes with what it says.
    count = int(true.count[0])
    assert int(estimate.count_probabilities[0].argmax()) == count
    assert estimate.count_probabilities.sum() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(
        estimate.presence_probability[0, 0], 1 - estimate.count_probabilities[0, 0]
    )
    classes = estimate.class_probabilities[0, :count].argmax(-1)
    assert torch.equal(classes, estimate.scene.identity[0, :count])
    turns = estimate.scene.identity[0, :count] != PLATE
    assert torch.equal(estimate.yaw_std[0, :count].isfinite(), turns)


def test_without_rounds_number_and_classes_stay(
    renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    guess, true = MISTAKES["two cups read as one"]
    found = mend(guess, renderer.render(true), rounds=0)
    assert torch.equal(found.estimate.scene.count, guess.count)
    assert found.error[0] < found.error_before[0]


def test_images_of_one_batch_do_not_disturb_each_other(
    renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    guesses, truths = (Scene.cat(list(column)) for column in zip(*MISTAKES.values(), strict=True))
    image = renderer.render(truths)
    before = guesses.position.clone()
    together = mend(guesses, image)
    assert torch.equal(guesses.position, before)  # what is handed in stays as it is
    for b in (3, 6):
        alone = mend(guesses[b], image[b : b + 1])
        assert torch.equal(alone.estimate.scene.presence[0], together.estimate.scene.presence[b])
        assert float(alone.error[0]) == pytest.approx(float(together.error[b]), rel=0.5, abs=1e-6)


# --- never worse -----------------------------------------------------------------------------


def test_never_ends_worse_than_it_started(
    spec: SceneSpec, renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    """Whatever the image is: another scene, noise, a flat wall, one that is far too bright."""
    generator = seeded(7)
    scene = sample(spec, 6, generator=generator)
    image = renderer.render(sample(spec, 6, generator=generator))
    image[2] = torch.rand(image[2].shape, generator=generator)
    image[3] = 0.5
    image[4] = (1.8 * image[4]).clamp(0, 1)
    image[5] = 0.0
    found = mend(scene, image, rounds=2)
    assert (found.error <= found.error_before).all()
    shown = (renderer.render(found.estimate.scene) - image).square().mean((1, 2, 3))
    torch.testing.assert_close(shown, found.error, rtol=1e-3, atol=1e-6)
    start = (renderer.render(scene) - image).square().mean((1, 2, 3))
    torch.testing.assert_close(start, found.error_before, rtol=1e-3, atol=1e-6)


def test_exposure_does_not_move_what_is_right(
    spec: SceneSpec, renderer: Renderer, mend: Callable[..., Refined]
) -> None:
    true = sample(spec, 4, generator=seeded(8))
    found = mend(true, 0.93 * renderer.render(true))
    assert torch.equal(found.estimate.scene.presence, true.presence)
    assert errors(found.estimate.scene, true)[0].max() < 1e-3


# --- time ------------------------------------------------------------------------------------


class Slow:
    """A drawing that takes a second for each picture, by a clock of its own."""

    def __init__(self, renderer: Renderer) -> None:
        self.inner, self.now = Drawing(renderer), 0.0

    def render(self, scene: Scene) -> Tensor:
        self.now += len(scene)
        return self.inner.render(scene)

    def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
        self.now += 8.0 * len(scene)
        return self.inner.jacobian(scene, picture, wanted)


@pytest.mark.parametrize("seconds", [1.0, 15.0, 40.0, 60.0, 100.0, 300.0, math.inf])
def test_the_time_limit_is_kept(seconds: float, spec: SceneSpec, renderer: Renderer) -> None:
    guess, true = MISTAKES["two cups read as one"]
    slow = Slow(renderer)
    image = renderer.render(true)
    options = Refinement(steps=5, seconds=seconds)
    found = refine(spec, estimate_of(spec, guess), image, slow, options, clock=lambda: slow.now)
    # The start has to be drawn to be compared.
    assert slow.now <= max(seconds, 1.0)
    assert found.error[0] <= found.error_before[0]
    if seconds >= 40.0:
        assert found.error[0] < found.error_before[0] and found.curved.all()
    if seconds <= 1.0:
        assert not found.curved.any()
        torch.testing.assert_close(found.estimate.scene.position, guess.position)
    if seconds == math.inf:
        assert found.estimate.scene.count.tolist() == [2]


def test_a_batch_shares_its_time(spec: SceneSpec, renderer: Renderer) -> None:
    true = sample(spec, 40, generator=seeded(9))
    guess = dataclasses.replace(true, position=true.position + 0.005)
    slow, image = Slow(renderer), renderer.render(true)
    options = Refinement(seconds=1200.0)
    found = refine(spec, estimate_of(spec, guess), image, slow, options, clock=lambda: slow.now)
    assert slow.now <= 1200.0
    occupied = true.count > 0
    assert (found.error[occupied] < found.error_before[occupied]).all()  # a step for each of them


def test_no_images(spec: SceneSpec, renderer: Renderer) -> None:
    estimate = estimate_of(spec, Scene.empty(2, 3))[torch.zeros(0, dtype=torch.int64)]
    found = refine(spec, estimate, torch.zeros(0, 3, SIZE, SIZE), Drawing(renderer))
    assert len(found.estimate.scene) == len(found.error) == 0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rounds": -1}, {"seconds": 0.0}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give at least 1 step"):
        Refinement(**wrong)  # type: ignore[arg-type]


# --- what is in doubt ------------------------------------------------------------------------


def test_doubt_is_where_something_is_missing_and_not_where_there_is_noise(
    renderer: Renderer,
) -> None:
    guess, true = MISTAKES["a plate overlooked"]
    image = renderer.render(true)
    doubt = doubts(image, renderer.render(guess))
    seen = (image - renderer.render(guess)).abs().amax(dim=(0, 1))
    middle = torch.stack([value.float().mean() for value in seen.gt(0.05).nonzero().T]).flip(0)
    assert doubt.excess[0] > 0.1 and (doubt.place[0] - middle).norm() < 12
    noisy = image + 0.03 * torch.randn(20, *image.shape[1:], generator=seeded())
    assert (doubts(noisy, image.expand_as(noisy)).excess > 0).float().mean() < 0.1


def test_alternatives_are_scenes_of_the_spec(spec: SceneSpec) -> None:
    guess, _ = MISTAKES["a plate overlooked"]
    others = alternatives(spec, guess, guess, torch.tensor([30.0, 50.0]), SIZE, SIZE)
    assert others is not None
    assert others.scenes.count.min() >= 0 and others.scenes.count.max() <= 3
    known = others.scenes.identity[others.scenes.presence]
    assert known.min() >= 0 and known.max() < len(spec.objects)
    # Marked is what differs, and nothing else does.
    same = ~others.changed
    for mine, before in zip(others.scenes.tensors(), guess.tensors(), strict=True):
        if mine.dim() > 1:
            kept = mine[same]
            assert torch.equal(kept, before.expand_as(mine)[same])
    full = scene_of((CUP, 0.2, 0.2, 0.0), (CUP, -0.2, 0.2, 0.0), (CUP, 0.0, -0.2, 0.0))
    far = torch.tensor([1.0, 1.0])
    assert alternatives(spec, full, full, far, SIZE, SIZE) is None  # nothing near, no room
