"""The example of a robot's program, as a robot would run it."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.app import create_app
from service.cameras.schemas import CameraScene, FrameSource
from service.client import Client
from service.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "robot.py"
PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture
def robot() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        return int(caught.value.code or 0)

    return run


def test_watches_a_table(
    run: Callable[..., int], serve: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(create_app(Settings())) as client:
        while client.get("/readyz").status_code == 503:
            pass
        url = str(client.base_url)
        photos = [str(PHOTOS / "table-08.png"), str(PHOTOS / "table-00.png")]  # three, and none
        assert run(*photos, "--url", url, "--every", "0.2", "--scenes", "3") == 0
    said = capsys.readouterr().out
    assert said.count("appeared at") >= 3
    assert "reach for it" in said


def test_the_world_is_what_was_seen_last(robot: SimpleNamespace, scenes: list[CameraScene]) -> None:
    three, none = scenes
    world = robot.World()
    assert [line.split(" ")[2] for line in world.update(three)] == ["appeared"] * 3
    assert world.update(three) == []
    thing = three.objects[0]
    pushed = thing.pose.position.model_copy(update={"x": thing.pose.position.x + 0.05})
    moved = thing.model_copy(update={"pose": thing.pose.model_copy(update={"position": pushed})})
    (said,) = world.update(three.model_copy(update={"objects": [moved, *three.objects[1:]]}))
    assert "moved to" in said
    assert world.things[thing.id].pose.position.x == pushed.x
    # One frame without an object is no reason to forget it.
    assert world.update(none) == []
    assert len(world.plan()) == 3
    assert [line.endswith("is gone") for line in world.update(none)] == [True] * 3
    assert world.plan() == []


def test_a_foreign_picture_changes_nothing(
    robot: SimpleNamespace, scenes: list[CameraScene]
) -> None:
    three, none = scenes
    world = robot.World()
    world.update(three)
    foreign = none.quality.model_copy(update={"in_distribution": False})
    for _ in range(5):
        (said,) = world.update(none.model_copy(update={"quality": foreign}))
        assert "ignored" in said
    assert len(world.things) == 3


def test_leaves_what_is_doubtful(robot: SimpleNamespace, scenes: list[CameraScene]) -> None:
    thing = scenes[0].objects[0]
    sure = thing.model_copy(update={"score": 1.0, "covariance": [0.0] * 36})
    sure = sure.model_copy(update={"yaw": thing.yaw.model_copy(update={"std": 0.01})})
    assert robot.doubts(sure) == []
    loose = [0.0] * 36
    loose[7] = 0.02**2
    for change, says in (
        ({"score": 0.5}, "perhaps no"),
        ({"covariance": loose}, "position known to 2.0 cm only"),
        ({"yaw": thing.yaw.model_copy(update={"std": 0.5})}, "yaw known to 29 degrees only"),
    ):
        (said,) = robot.doubts(sure.model_copy(update=change))
        assert says in said


@pytest.fixture(scope="module")
def scenes(serve: Callable[..., Any]) -> list[CameraScene]:
    """Of a table with three objects, and of an empty one."""
    found = []
    with serve(create_app(Settings())) as client:
        while client.get("/readyz").status_code == 503:
            pass
        with Client(str(client.base_url)) as own:
            for frame, photo in enumerate(("table-08.png", "table-00.png"), 1):
                answer = own.infer((PHOTOS / photo).read_bytes())
                source = FrameSource(name="front", frame=frame)
                found.append(CameraScene(**dict(answer), source=source))
    return found


def test_says_what_is_wrong(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", "http://127.0.0.1:9") == 1
    assert "make serve" in capsys.readouterr().err
    assert run("none.png") == 1
    assert "none.png" in capsys.readouterr().err
