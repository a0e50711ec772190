"""A batch of scenes: its shapes, its parts, its plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from renderer import Scene, SceneSpec
from renderer.prior import sample


@pytest.fixture
def scenes() -> Scene:
    return Scene(
        presence=torch.tensor([[True, True], [True, False], [False, False]]),
        identity=torch.tensor([[1, 0], [0, 0], [0, 0]]),
        position=torch.arange(12.0).reshape(3, 2, 2) / 100,
        yaw=torch.arange(6.0).reshape(3, 2) / 10,
        azimuth=torch.tensor([0.1, 0.2, 0.3]),
    )


def same(a: Scene, b: Scene) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True))


def test_counts_and_sizes(scenes: Scene) -> None:
    assert len(scenes) == 3 and scenes.slots == 2
    assert scenes.count.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("identity", (3, 1)), ("position", (3, 2)), ("yaw", (2, 2)), ("azimuth", (3, 1))],
)
def test_a_wrong_shape_is_named(scenes: Scene, name: str, shape: tuple[int, ...]) -> None:
    fields = {**scenes.__dict__, name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf"Scene\.{name} has shape"):
        Scene(**fields)


def test_presence_must_be_bool(scenes: Scene) -> None:
    with pytest.raises(TypeError, match="must be bool"):
        Scene(**{**scenes.__dict__, "presence": torch.ones(3, 2)})


def test_parts_of_a_batch(scenes: Scene) -> None:
    assert same(scenes[-1], scenes[2:]) and same(scenes[0], scenes[:1])
    assert same(scenes[torch.tensor([2, 0])], Scene.cat([scenes[2], scenes[0]]))
    assert same(Scene.cat([scenes[:1], scenes[1:]]), scenes)
    with pytest.raises(IndexError):
        scenes[3]
    with pytest.raises(IndexError):
        scenes[-4]


def test_a_batch_can_be_walked_through(scenes: Scene) -> None:
    assert [float(scene.azimuth) for scene in scenes] == pytest.approx([0.1, 0.2, 0.3])


def test_slots_change_places(scenes: Scene) -> None:
    for order in ([1, 0], torch.tensor([[1, 0]] * 3)):
        swapped = scenes.permute_slots(order)
        assert swapped.identity[0].tolist() == [0, 1]
        assert torch.equal(swapped.position[:, 0], scenes.position[:, 1])
        assert same(swapped.permute_slots(order), scenes)


def test_empty_scenes() -> None:
    empty = Scene.empty(4, 3)
    assert empty.count.tolist() == [0] * 4 and empty.slots == 3


def test_records_hold_only_what_is_there(scenes: Scene, world: dict[str, Any]) -> None:
    records = scenes.records(SceneSpec.build(world))
    classes = [[thing["class_id"] for thing in record["objects"]] for record in records]  # type: ignore[attr-defined]
    assert classes == [["ball", "cube"], ["cube"], []]
    first = records[0]["objects"][1]  # type: ignore[index]
    assert first["position"] == pytest.approx({"x": 0.02, "y": 0.03})
    assert first["yaw"] == pytest.approx(0.1)


def test_records_are_plain_data(world: dict[str, Any]) -> None:
    spec = SceneSpec.build(world)
    scene = sample(spec, 5, generator=torch.Generator().manual_seed(0))
    assert json.loads(json.dumps(scene.records(spec))) == scene.records(spec)
