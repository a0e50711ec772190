"""Each part on the smallest scale, through the command: what it writes, and what it adds up to."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import renderer.backend
from benchmarks.cli import Options, main
from benchmarks.machine import facts
from benchmarks.parts import Parts
from renderer import BackendError, opengl

FORWARD = ["--only", "forward", "--forward.sizes", "16"]
GRADIENT = [
    *("--only", "gradient", "--gradient.size", "16"),
    *("--gradient.scenes", "2", "--gradient.whole-scenes", "2"),
]
GRADIENT += ["--gradient.objects", "1", "2", "--gradient.small-objects", "2"]
GROWTH = ["--only", "growth", "--growth.size", "16", "--growth.batches", "1", "3"]
PROFILE = ["--only", "profile", "--profile.size", "16", "--profile.batches", "1", "3"]
PROFILE += ["--profile.gradient-scenes", "2", "--profile.supersamples", "2"]


@pytest.fixture
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> None:
        raise BackendError("no headless OpenGL here; install [some] of it")

    monkeypatch.setattr(opengl, "create_context", none_here)


@pytest.mark.usefixtures("one_core")
def test_forward(run: Any, alone: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(*FORWARD)
    assert result["settings"]["rounds"] == result["settings"]["scenes"] == 2
    assert result["command"].startswith("python -m benchmarks --rounds 2 --scenes 2 --only forward")
    assert {"cpu_count", "load_average", "load_average_afterwards"} <= set(result["machine"])
    assert list(result["parts"]) == ["forward"]
    part = result["parts"]["forward"]
    assert part["options"] == {"spec": "tabletop", "sizes": [16], "supersamples": [1, 2]}
    contenders = ["mujoco.Renderer", *alone] if "opengl" in alone else alone
    assert [(row["supersample"], row["contender"]) for row in part["rows"]] == [
        (supersample, name) for supersample in (1, 2) for name in contenders
    ]
    for row in part["rows"]:
        assert len(row["seconds"]["rounds"]) == row["scenes"] == 2
        rate = row["images_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        if row["contender"] == "mujoco.Renderer":
            assert row["speedup"] == 1
    assert "one core" in part["skipped"]["raycast, all cores"]
    if not torch.cuda.is_available():
        assert "CUDA" in part["skipped"]["raycast, card"]
    printed = capsys.readouterr().out
    assert "raycast" in printed and "images/s" in printed


@pytest.mark.usefixtures("one_core")
def test_gradient(run: Any, alone: list[str]) -> None:
    part = run(*GRADIENT)["parts"]["gradient"]
    keys = ("contender", "objects", "scale", "scheme", "azimuth", "way")
    cases = {tuple(row[key] for key in keys): row for row in part["rows"]}
    mine = [row for row in part["rows"] if row["contender"] in alone]
    crowds = [(1, 1.0), (2, 1.0), (2, 0.6)]
    assert len(cases) == len(part["rows"])
    assert len(mine) == 2 * 2 * 2 * len(crowds) * len(alone)
    for backend in alone:
        for count, scale in crowds:
            moved = {
                (scheme, azimuth): cases[backend, count, scale, scheme, azimuth, "windows"]
                for scheme in ("central", "forward")
                for azimuth in (False, True)
            }
            moved = {case: row["moved_scenes"] for case, row in moved.items()}
            # x and y of each object, and the yaw of those that show it; the camera is one more.
            assert 2 * count <= moved["forward", False] <= 3 * count
            assert moved["forward", True] == moved["forward", False] + 1
            assert moved["central", True] == 2 * moved["forward", True]
    for row in part["rows"]:
        price = row["seconds"]["median"] / row["render_seconds"]["median"]
        assert row["price"] == pytest.approx(price, rel=1e-5)
    # Two points make a line, one does not: the small objects have none.
    assert {law["scale"] for law in part["laws"]} == {1.0}
    for law in part["laws"]:
        case = [law[key] for key in ("scheme", "azimuth", "way")]
        for count in (1, 2):
            price = cases[law["contender"], count, 1.0, *case]["price"]
            assert law["once"] + count * law["each"] == pytest.approx(price, rel=1e-4)


@pytest.mark.usefixtures("one_core")
def test_growth(run: Any, alone: list[str]) -> None:
    part = run(*GROWTH)["parts"]["growth"]
    mine = [row for row in part["rows"] if row["contender"] in alone]
    assert [(row["scenes"], row["contender"]) for row in mine] == [
        (scenes, name) for scenes in (1, 3) for name in alone
    ]
    for law in part["laws"]:
        for row in part["rows"]:
            if row["contender"] == law["contender"]:
                line = law["once"] + law["each"] * row["scenes"]
                measured = row[f"{law['of']}_seconds"]["median"]
                assert line == pytest.approx(measured, rel=1e-3)
    assert {(law["contender"], law["of"]) for law in part["laws"]} >= {
        (name, of) for name in alone for of in ("render", "gradient")
    }


def test_profile(run: Any, alone: list[str]) -> None:
    part = run(*PROFILE)["parts"]["profile"]
    cases = [(row["what"], row["contender"], row["scenes"]) for row in part["rows"]]
    assert cases == [
        *(("picture", name, scenes) for name in alone for scenes in (1, 3)),
        *(("gradient", name, 2) for name in alone),
    ]
    for row in part["rows"]:
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"], rel=1e-3)
        if row["what"] == "gradient":
            assert 0 < row["window_area"] < 1


def test_all_cores(
    run: Any, has_opengl: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for module in (renderer.backend, __import__("benchmarks.contenders").contenders):
        monkeypatch.setattr(module, "available_cpus", lambda: 2)
    if not has_opengl:
        request.getfixturevalue("no_opengl")
    part = run(*FORWARD, "--forward.supersamples", "1")["parts"]["forward"]
    names = [row["contender"] for row in part["rows"]]
    assert "raycast, all cores" in names
    assert ("opengl, all cores" in names) == has_opengl


@pytest.mark.usefixtures("no_opengl", "one_core")
def test_without_opengl(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(*FORWARD)
    part = result["parts"]["forward"]
    mine = [row for row in part["rows"] if row["contender"] != "raycast, card"]
    assert [row["contender"] for row in mine] == ["raycast", "raycast"]
    assert [row["speedup"] for row in mine] == [None, None]
    reason = "no headless OpenGL here; install [some] of it"
    assert part["skipped"]["mujoco.Renderer"] == part["skipped"]["opengl"] == reason
    assert result["machine"]["opengl_missing"] == reason
    assert f"without opengl: {reason}" in capsys.readouterr().out
    for arguments in (GRADIENT, PROFILE):
        (part,) = run(*arguments)["parts"].values()
        assert part["skipped"]["opengl"] == reason
        assert {row["contender"] for row in part["rows"]} <= {"raycast", "raycast, card"}


def test_machine_facts(has_opengl: bool) -> None:
    machine = json.loads(json.dumps(facts()))
    assert {"cpu_count", "affinity", "processor", "load_average", "torch_threads"} <= set(machine)
    assert machine["versions"]["torch"] == torch.__version__
    assert machine["versions"]["mujoco"] and machine["versions"]["warp-lang"]
    assert bool(machine["opengl"]) == has_opengl
    assert bool(machine["opengl_missing"]) != has_opengl
    assert bool(machine["card"]) == torch.cuda.is_available()
    if has_opengl:
        assert all(machine["opengl"].values())


def test_unusable_arguments_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    for arguments in (
        ["--only", "backward"],
        ["--rounds", "0"],
        [*FORWARD, "--forward.sizes", "0"],
        [*FORWARD, "--forward.spec", "desk"],
        [*GRADIENT, "--gradient.scenes", "0"],
        [*GROWTH, "--growth.batches", "0"],
        [*PROFILE, "--profile.size", "0"],
        ["--only", "memory", "--memory.objects", "0"],
    ):
        assert main([*arguments, "--json", str(file)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    assert not file.exists()


def test_all_parts_when_none_is_named() -> None:
    every = [
        *("forward", "gradient", "growth", "profile", "memory"),
        *("step", "distributed", "peer", "service", "page"),
    ]
    assert list(Parts().chosen([])) == every
    assert list(Parts().chosen(["gradient", "forward"])) == ["forward", "gradient"]
    assert Options().only == ()


def test_step(run: Any) -> None:
    chosen = ("--step.classes", "2", "--step.objects", "1", "2", "--step.sizes", "48", "64")
    smallest = ("--step.batch", "2", "--step.supersample", "1", "--step.backend", "raycast")
    part = run("--only", "step", *chosen, *smallest)["parts"]["step"]
    seen = [(row["classes"], row["objects"], row["size"]) for row in part["rows"]]
    assert seen == [(2, 1, 48), (2, 2, 48), (2, 1, 64)]
    first = part["rows"][0]
    assert first["ratio"] == first["network_ratio"] == 1
    assert all(row["drawing_seconds"]["median"] > 0 for row in part["rows"])


@pytest.mark.slow
def test_distributed(run: Any) -> None:
    part = run(
        *("--only", "distributed", "--distributed.experiment", "objects"),
        *("--distributed.steps", "2", "--distributed.rounds", "1"),
        *("--distributed.backend", "raycast"),
    )["parts"]["distributed"]
    assert part["rows"][0]["images_per_second_ratio"] == 1
    for row in part["rows"]:
        assert len(row["trainings"][0]) == row["processes"]
        assert row["trainings"][0][0]["images"] == 2 * 64
    assert len(part["rows"]) + len(part["skipped"]) == 2
