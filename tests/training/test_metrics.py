"""Matching of inferred to true objects, and the errors over the matches."""

import math

import pytest
import torch

from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.metrics import accuracy, match, summary, yaw_errors
from training.reliability import expected_calibration_error

CUP, PAN, PLATE = 0, 1, 2


def scene(*objects: tuple[int, float, float, float], azimuth: float = 0.0) -> Scene:
    """One scene with three slots from (class, x, y, yaw)."""
    result = Scene.empty(1, 3)
    for slot, (identity, x, y, yaw) in enumerate(objects):
        result.presence[0, slot] = True
        result.identity[0, slot] = identity
        result.position[0, slot] = torch.tensor([x, y])
        result.yaw[0, slot] = yaw
    result.azimuth[0] = azimuth
    return result


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


def test_matching_takes_the_least_total_distance_not_the_nearest_first() -> None:
    true = scene((CUP, 0.0, 0.0, 0.0), (CUP, 0.3, 0.0, 0.0))
    inferred = scene((CUP, 0.2, 0.0, 0.0), (CUP, 0.31, 0.0, 0.0))
    pairs = match(inferred, true)
    assert dict(zip(pairs.inferred.tolist(), pairs.true.tolist(), strict=True)) == {0: 0, 1: 1}
    assert pairs.distance.tolist() == pytest.approx([0.2, 0.01])


def test_absent_slots_are_never_matched() -> None:
    pairs = match(scene(), scene((CUP, 0.0, 0.0, 0.0)))
    assert len(pairs.scene) == 0


def test_perfect_answer(spec: SceneSpec) -> None:
    true = scene((CUP, 0.1, 0.2, 1.0), (PLATE, -0.2, 0.0, 0.0), azimuth=0.3)
    inferred = true.permute_slots([1, 0, 2])
    figures = accuracy(spec, inferred, true)
    for name in ("count_accuracy", "identity_accuracy", "recall", "precision"):
        assert figures[name] == 1.0
    assert figures["yaw_error_rad"] == {"median": 0.0, "mean": 0.0, "p90": 0.0}


def test_wrong_class_far_object_and_invented_object_count_against(spec: SceneSpec) -> None:
    true = scene((CUP, 0.0, 0.0, 0.0), (PAN, 0.3, 0.0, 0.0))
    inferred = scene((PLATE, 0.01, 0.0, 0.0), (PAN, 0.3, 0.2, 0.0), (CUP, -0.3, -0.3, 0.0))
    figures = accuracy(spec, inferred, true)
    assert figures["count_accuracy"] == 0.0
    assert figures["identity_accuracy"] == 0.0  # the one object near a true one
    assert figures["recall"] == 0.0
    assert figures["precision"] == 0.0


def test_recall_and_precision_differ_when_an_object_is_missed(spec: SceneSpec) -> None:
    true = scene((CUP, 0.0, 0.0, 0.0), (PAN, 0.3, 0.0, 0.0))
    figures = accuracy(spec, scene((CUP, 0.03, 0.0, 0.0)), true)
    assert figures["recall"] == 0.5
    assert figures["precision"] == 1.0
    position = figures["position_error_m"]
    assert isinstance(position, dict)
    assert position["median"] == pytest.approx(0.03)


def test_yaw_is_compared_modulo_the_symmetry() -> None:
    spec = SceneSpec.load("objects")  # cube: 4-fold, sphere: continuous, cylinder: none
    identity = torch.tensor([0, 0, 1, 2])
    inferred = torch.tensor([math.pi / 2 + 0.1, math.pi / 4, 1.0, math.pi - 0.1])
    true = torch.tensor([0.0, 0.0, 0.0, -math.pi + 0.1])
    errors = yaw_errors(spec, identity, inferred, true)
    assert errors[[0, 1, 3]].tolist() == pytest.approx([0.1, math.pi / 4, 0.2], abs=1e-5)
    assert errors[2].isnan()


def test_azimuth_error_wraps(spec: SceneSpec) -> None:
    figures = accuracy(spec, scene(azimuth=math.pi - 0.01), scene(azimuth=-math.pi + 0.01))
    azimuth = figures["azimuth_error_rad"]
    assert isinstance(azimuth, dict)
    assert azimuth["mean"] == pytest.approx(0.02, abs=1e-5)


def test_summary_of_nothing_is_none() -> None:
    assert summary(torch.tensor([math.nan])) == {"median": None, "mean": None, "p90": None}


def test_calibration_error_of_known_cases() -> None:
    sure = torch.tensor([[1.0, 0.0]] * 4)
    assert expected_calibration_error(sure, torch.zeros(4, dtype=torch.int64)) == 0.0
    assert expected_calibration_error(sure, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    unsure = torch.tensor([[0.75, 0.25]] * 4)
    assert expected_calibration_error(unsure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.0)
