"""What went wrong is told in words, the worst first."""

import math
from dataclasses import replace

import pytest
import torch

from renderer import Scene, SceneSpec, open_renderer
from training.mistakes import mistakes_of
from training.occlusion import distances, visible_shares

CUP, PAN, PLATE = 0, 1, 2


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


def scene(*objects: tuple[int, float, float, float]) -> Scene:
    result = Scene.empty(1, 3)
    for slot, (identity, x, y, yaw) in enumerate(objects):
        result.presence[0, slot] = True
        result.identity[0, slot] = identity
        result.position[0, slot] = torch.tensor([x, y])
        result.yaw[0, slot] = yaw
    return result


def test_every_mistake_has_its_words(spec: SceneSpec) -> None:
    true = scene((CUP, 0.0, 0.0, 0.0), (PAN, 0.3, 0.0, 0.0), (PLATE, -0.3, 0.0, 1.0))
    guess = scene((CUP, 0.02, 0.0, math.pi), (PLATE, 0.3, 0.0, 0.0), (PLATE, 0.0, 0.35, 2.0))
    shares = torch.tensor([[0.5, 1.0, 1.0]])
    (said,) = mistakes_of(spec, guess, true, shares)
    assert sorted(one.says for one in said) == [
        "cup (50% seen) 20 mm off",
        "cup (50% seen) turned by 180°",
        "pan taken for a plate",
        "plate invented",
        "plate missed",
    ]
    assert said[0].badness == 1.0 >= said[-1].badness
    assert mistakes_of(spec, true, true, shares) == [[]]


def test_what_stands_in_front_hides_what_is_behind(spec: SceneSpec) -> None:
    renderer = open_renderer(spec, height=64, width=64, backend="raycast", supersample=1)
    apart = scene((CUP, 0.0, 0.0, 0.0), (CUP, 0.3, 0.0, 0.0))
    behind = scene((CUP, 0.0, 0.0, 0.0), (CUP, 0.0, 0.14, 0.0))
    shares = visible_shares(renderer, Scene.cat([apart, behind]))
    assert (shares[0, :2] == 1.0).all() and shares[:, 2].isnan().all()
    assert shares[1, 0] == 1.0 and 0.2 < float(shares[1, 1]) < 0.95
    # The camera stands at -y.
    far = distances(spec, behind)
    assert far[0, 0] == pytest.approx(spec.camera.distance)
    assert far[0, 1] > far[0, 0]
    turned = replace(behind, azimuth=torch.tensor([math.pi]))
    assert distances(spec, turned)[0, 1] < far[0, 0]
    renderer.close()
