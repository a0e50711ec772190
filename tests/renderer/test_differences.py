import dataclasses
import math

import pytest
import torch
from torch import Tensor

from renderer.differences import (
    LEAD,
    Differences,
    Scheme,
    Steps,
    contract,
    freedoms,
    perturb,
    plan,
)
from renderer.scene import Scene
from renderer.spec import SceneSpec

STEPS = Steps(position=0.5, yaw=0.25, azimuth=0.125)
SCHEMES: tuple[Scheme, ...] = ("central", "forward", "random")
# Cup and pan show how they are turned, the plate does not.
ORDERS = (1, 1, 0)


def scenes() -> Scene:
    """Three scenes with two slots: a cup and a plate, a pan, nothing."""
    return Scene(
        presence=torch.tensor([[True, True], [True, False], [False, False]]),
        # Absent slots hold no class at all.
        identity=torch.tensor([[0, 2], [1, 99], [-1, 99]]),
        position=torch.arange(12.0).reshape(3, 2, 2) / 10,
        yaw=torch.arange(6.0).reshape(3, 2),
        azimuth=torch.tensor([0.1, 0.2, 0.3]),
    )


def flat(scene: Scene) -> Tensor:
    """All freedoms in their order, `[B, 3K + 1]`."""
    values = [scene.position.flatten(1), scene.yaw, scene.azimuth[:, None]]
    return torch.cat(values, dim=1)


def gradient_of(
    function: Tensor, scene: Scene, differences: Differences, power: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the sum over freedoms of `function * value ** power`, by differences."""
    value = (flat(scene) ** power * function).sum(1)
    moved = (flat(perturb(scene, differences)) ** power * function[differences.row]).sum(1)
    change = moved - value[differences.row]
    return contract(differences, change, len(scene), scene.slots)


def test_freedoms_are_those_that_show() -> None:
    # x0 y0 x1 y1, yaw0 yaw1, azimuth
    expected = [[1, 1, 1, 1, 1, 0, 1], [1, 1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1]]
    assert torch.equal(freedoms(scenes(), ORDERS), torch.tensor(expected, dtype=torch.bool))


@pytest.mark.parametrize(("name", "columns"), [("position", 4), ("yaw", 2), ("azimuth", 1)])
def test_only_the_freedoms_asked_for(name: str, columns: int) -> None:
    everything = freedoms(scenes(), ORDERS)
    asked = {part: part == name for part in ("position", "yaw", "azimuth")}
    start = {"position": 0, "yaw": 4, "azimuth": 6}[name]
    expected = torch.zeros_like(everything)
    expected[:, start : start + columns] = everything[:, start : start + columns]
    assert torch.equal(freedoms(scenes(), ORDERS, **asked), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_move_changes_one_freedom_by_its_step(scheme: Scheme) -> None:
    scene = scenes()
    free = freedoms(scene, ORDERS)
    differences = plan(free, STEPS, scheme)
    assert len(differences) == int(free.sum()) * (2 if scheme == "central" else 1)
    moved = flat(perturb(scene, differences)) - flat(scene)[differences.row]
    steps = STEPS.row(scene.slots).float()
    for n, (row, freedom) in enumerate(zip(differences.row, differences.freedom, strict=True)):
        assert free[row, freedom]
        assert moved[n].nonzero().flatten().tolist() == [freedom]
        assert moved[n, freedom].abs() == pytest.approx(float(steps[freedom]), abs=1e-6)
        assert moved[n, freedom] == pytest.approx(float(differences.offset[n]), abs=1e-6)
    if scheme == "forward":
        assert (differences.offset > 0).all()
    if scheme == "central":
        assert torch.equal(differences.offset[::2], -differences.offset[1::2])


def test_perturb_leaves_the_scene_alone_and_outside_the_graph() -> None:
    scene = dataclasses.replace(scenes(), yaw=scenes().yaw.requires_grad_())
    moved = perturb(scene, plan(freedoms(scene, ORDERS), STEPS, "forward"))
    assert not moved.yaw.requires_grad
    for value, before in zip(scene.tensors(), scenes().tensors(), strict=True):
        assert torch.equal(value, before)
    assert moved.slots == scene.slots


@pytest.mark.parametrize("scheme", SCHEMES)
def test_linear_functions_have_their_exact_gradient(scheme: Scheme) -> None:
    scene = scenes()
    free = freedoms(scene, ORDERS)
    slope = torch.randn(free.shape, generator=torch.Generator().manual_seed(0))
    found = gradient_of(slope, scene, plan(free, STEPS, scheme), power=1)
    expected = slope * free
    assert torch.allclose(found[0].flatten(1), expected[:, :4], atol=1e-5)
    assert torch.allclose(found[1], expected[:, 4:6], atol=1e-5)
    assert torch.allclose(found[2], expected[:, 6], atol=1e-5)


def test_central_differences_of_a_square_are_exact_and_forward_ones_off_by_the_step() -> None:
    scene = scenes()
    free = freedoms(scene, ORDERS)
    ones, slope = torch.ones(free.shape), 2 * flat(scene) * free
    biases: dict[Scheme, float] = {"central": 0.0, "forward": 1.0}
    for scheme, bias in biases.items():
        found = gradient_of(ones, scene, plan(free, STEPS, scheme), power=2)
        expected = slope + bias * STEPS.row(scene.slots).float() * free
        joined = torch.cat([found[0].flatten(1), found[1], found[2][:, None]], dim=1)
        assert torch.allclose(joined, expected, atol=1e-4)


def test_random_signs_are_forward_or_backward_and_central_on_average() -> None:
    scene = scenes()
    free = freedoms(scene, ORDERS)
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(free.shape)
    # The third power has all errors: O(step) to one side, O(step²) in the middle.
    central, forward = (
        gradient_of(ones, scene, plan(free, STEPS, scheme), power=3)[0]
        for scheme in ("central", "forward")
    )
    backward = 2 * central - forward
    mean, draws = torch.zeros_like(central), 400
    for _ in range(draws):
        differences = plan(free, STEPS, "random", generator=generator)
        found = gradient_of(ones, scene, differences, power=3)[0]
        ahead = torch.isclose(found, forward, atol=1e-4)
        assert (ahead | torch.isclose(found, backward, atol=1e-4)).all()
        mean += found / draws
    # Five standard errors of a fair coin between the two.
    bound = 5 * (forward - backward).abs() / 2 / math.sqrt(draws)
    assert ((mean - central).abs() <= bound + 1e-3).all()


def test_random_signs_follow_their_generator() -> None:
    free = torch.ones(16, 7, dtype=torch.bool)
    one, same, other = (
        plan(free, STEPS, "random", generator=torch.Generator().manual_seed(seed)).offset
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of: central, forward, random"):
        plan(torch.ones(1, 4, dtype=torch.bool), STEPS, "sideways")  # type: ignore[arg-type]


def test_nothing_to_move() -> None:
    scene = Scene.empty(2, 3)
    free = freedoms(scene, ORDERS, azimuth=False)
    differences = plan(free, STEPS, "central")
    assert len(differences) == 0
    assert list(differences.split(8)) == []
    gradients = contract(differences, torch.zeros(0), 2, 3)
    assert [gradient.shape for gradient in gradients] == [(2, 3, 2), (2, 3), (2,)]
    assert not any(gradient.any() for gradient in gradients)


def test_split_keeps_all_in_order() -> None:
    differences = plan(torch.ones(3, 7, dtype=torch.bool), STEPS, "central")
    parts = list(differences.split(10))
    assert [len(part) for part in parts] == [10, 10, 10, 10, 2]
    for field in dataclasses.fields(Differences):
        joined = torch.cat([getattr(part, field.name) for part in parts])
        assert torch.equal(joined, getattr(differences, field.name))


@pytest.mark.parametrize("value", [0.0, -0.01, math.nan, math.inf])
def test_impossible_steps_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"Steps\.yaw"):
        Steps(position=0.01, yaw=value, azimuth=0.01)


@pytest.mark.parametrize("name", ["objects", "tabletop"])
def test_steps_for_size_follow_the_pixel(name: str) -> None:
    spec = SceneSpec.load(name)
    small, large = Steps.for_size(spec, 64), Steps.for_size(spec, 128)
    assert small.position == pytest.approx(2 * large.position)
    assert small.azimuth == pytest.approx(2 * large.azimuth)
    assert small.yaw == pytest.approx(2 * large.yaw)
    # The leads measured at 32 px: 3 cm and 0.15 rad.
    lead = Steps.for_size(spec, 32)
    assert 0.02 < lead.position < 0.04
    assert 0.1 < lead.yaw < 0.25
    pixel = 2 * spec.camera.distance * math.tan(math.radians(spec.camera.fovy_deg) / 2) / 32
    assert lead.position == pytest.approx(LEAD * pixel)


def test_yaw_steps_stay_within_a_symmetric_objects_period() -> None:
    spec = SceneSpec.load("objects")  # its cube looks the same after a quarter turn
    assert Steps.for_size(spec, 1).yaw <= math.pi / 2 / 8
    plates = SceneSpec.build(
        {
            "name": "balls",
            "table": {"half_size": [0.5, 0.5], "colour": [0, 0, 0]},
            "camera": {
                "distance": 1.3, "elevation_deg": 45, "fovy_deg": 45, "azimuth_deg": [0, 0]
            },
            "objects": [
                {
                    "name": "ball", "shape": "sphere", "size": [0.1],
                    "colour": [1, 1, 1], "symmetry": "continuous",
                }
            ],
            "count": {"max": 1},
            "placement": {"extent": [0.3, 0.3]},
        }
    )  # fmt: skip
    assert 0 < Steps.for_size(plates, 32).yaw <= 0.25
