import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cli import Options, Parts, main
from benchmarks.gradient import crowded, gradient
from benchmarks.machine import facts
from benchmarks.plain_loop import PlainLoop
from renderer import BackendError, Scene, SceneSpec, open_renderer, opengl
from renderer.prior import sample

TINY = ["--rounds", "2", "--scenes", "2"]
TINY_FORWARD = ["--only", "forward", "--forward.sizes", "16", *TINY]
TINY_GRADIENT = ["--only", "gradient", "--gradient.objects", "1", "2", "--gradient.size", "16"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def has_opengl() -> bool:
    try:
        opengl.create_context().free()
    except BackendError:
        return False
    return True


@pytest.fixture
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> None:
        raise BackendError("no headless OpenGL here; install [some] of it")

    monkeypatch.setattr(opengl, "create_context", none_here)


def run(file: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json", str(file)]) == 0
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def test_forward(tmp_path: Path, has_opengl: bool, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path / "deep" / "figures.json", *TINY_FORWARD)
    assert result["settings"] == {"rounds": 2, "scenes": 2, "seed": 0}
    assert {"cpu_count", "load_average", "load_average_afterwards"} <= set(result["machine"])
    assert list(result["parts"]) == ["forward"]
    part = result["parts"]["forward"]
    assert part["options"] == {"spec": "tabletop", "sizes": [16], "supersamples": [1, 2]}
    contenders = ["mujoco.Renderer", "opengl", "raycast"] if has_opengl else ["raycast"]
    assert [(row["supersample"], row["contender"]) for row in part["rows"]] == [
        (supersample, name) for supersample in (1, 2) for name in contenders
    ]
    for row in part["rows"]:
        assert len(row["seconds"]["rounds"]) == 2
        rate = row["images_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        if row["contender"] == "mujoco.Renderer":
            assert row["speedup"] == 1
    printed = capsys.readouterr().out
    assert "raycast" in printed and "images/s" in printed


def test_gradient(tmp_path: Path, has_opengl: bool) -> None:
    result = run(tmp_path / "figures.json", *TINY_GRADIENT, *TINY)
    part = result["parts"]["gradient"]
    cases = {
        (row["backend"], row["objects"], row["scheme"], row["azimuth"]): row for row in part["rows"]
    }
    backends = ["opengl", "raycast"] if has_opengl else ["raycast"]
    assert len(cases) == len(part["rows"]) == 8 * len(backends)
    for backend in backends:
        for count in (1, 2):
            moved = {
                (scheme, azimuth): cases[backend, count, scheme, azimuth]["moved_scenes"]
                for scheme in ("central", "forward")
                for azimuth in (False, True)
            }
            # x and y of each object, and the yaw of those that show it; the camera is one more.
            assert 2 * count <= moved["forward", False] <= 3 * count
            assert moved["forward", True] == moved["forward", False] + 1
            assert moved["central", True] == 2 * moved["forward", True]
    for row in part["rows"]:
        assert row["price"] == row["seconds"]["median"] / row["render_seconds"]["median"]


def test_machine_facts(has_opengl: bool) -> None:
    machine = json.loads(json.dumps(facts()))
    assert {"cpu_count", "affinity", "processor", "load_average", "torch_threads"} <= set(machine)
    assert machine["versions"]["torch"] == torch.__version__
    assert machine["versions"]["mujoco"] and machine["versions"]["warp-lang"]
    assert bool(machine["opengl"]) == has_opengl
    assert bool(machine["opengl_missing"]) != has_opengl
    if has_opengl:
        assert all(machine["opengl"].values())


@pytest.mark.usefixtures("no_opengl")
def test_without_opengl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path / "figures.json", *TINY_FORWARD)
    part = result["parts"]["forward"]
    assert [row["contender"] for row in part["rows"]] == ["raycast", "raycast"]
    assert [row["speedup"] for row in part["rows"]] == [None, None]
    reason = "no headless OpenGL here; install [some] of it"
    assert part["skipped"] == {"mujoco.Renderer": reason, "opengl": reason}
    assert result["machine"]["opengl_missing"] == reason
    assert f"without opengl: {reason}" in capsys.readouterr().out
    result = run(tmp_path / "figures.json", *TINY_GRADIENT, *TINY)
    part = result["parts"]["gradient"]
    assert part["skipped"] == {"opengl": reason}
    assert {row["backend"] for row in part["rows"]} == {"raycast"}


def test_unusable_arguments_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    for arguments in (
        ["--only", "backward"],
        ["--rounds", "0"],
        [*TINY_FORWARD, "--forward.sizes", "0"],
        [*TINY_FORWARD, "--forward.spec", "desk"],
    ):
        assert main([*arguments, "--json", str(file)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    assert not file.exists()


def test_all_parts_when_none_is_named() -> None:
    assert list(Parts().chosen([])) == ["forward", "gradient"]
    assert list(Parts().chosen(["gradient", "forward"])) == ["forward", "gradient"]
    assert Options().only == ()


def test_plain_loop_draws_what_the_backend_draws(has_opengl: bool) -> None:
    """Else its time would be no reference for the backend's."""
    if not has_opengl:
        pytest.skip("no headless OpenGL here")
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 6, generator=torch.Generator().manual_seed(1))
    assert scene.count.unique().numel() > 1
    loop = PlainLoop(spec, height=48, width=48, samples=1)
    theirs = torch.from_numpy(loop.render_bytes(scene))
    ours = open_renderer(spec, height=48, width=48, backend="opengl").render_bytes(scene)
    loop.close()
    torch.testing.assert_close(theirs, ours, atol=1, rtol=0)


def test_plain_loop_smooths_edges(has_opengl: bool) -> None:
    if not has_opengl:
        pytest.skip("no headless OpenGL here")
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 4, generator=torch.Generator().manual_seed(1))
    fine = open_renderer(spec, height=48, width=48, backend="opengl", supersample=8)
    truth = fine.render(scene).permute(0, 2, 3, 1) * 255
    errors = []
    for samples in (1, 4):
        loop = PlainLoop(spec, height=48, width=48, samples=samples)
        errors.append(float((torch.from_numpy(loop.render_bytes(scene)) - truth).abs().mean()))
        loop.close()
    assert errors[1] < 0.7 * errors[0]


def test_gradient_of_a_crowded_table() -> None:
    spec = crowded(2)
    scene = sample(spec, 3, generator=torch.Generator().manual_seed(0))
    assert scene.count.tolist() == [2, 2, 2]
    renderer = FlatRenderer(spec)
    upstream = torch.ones(3, 3, 4, 4)
    position, yaw = gradient(renderer, scene, upstream, scheme="central", azimuth=False)
    # The picture is x of the first object everywhere, and 48 values are summed.
    torch.testing.assert_close(position[:, 0, 0], torch.full((3,), 48.0))
    assert not position[..., 1].any() and not yaw.any()
    *_, azimuth = gradient(renderer, scene, upstream, scheme="forward", azimuth=True)
    assert azimuth.shape == (3,)
    assert not scene.position.requires_grad


class FlatRenderer:
    """A picture has one colour: where the first object stands."""

    name = "flat"
    height = width = 4
    device = torch.device("cpu")

    def __init__(self, spec: SceneSpec) -> None:
        self.spec = spec

    def render(self, scene: Scene) -> torch.Tensor:
        return scene.position[:, 0, 0, None, None, None].expand(-1, 3, 4, 4).clone()

    def render_bytes(self, scene: Scene) -> torch.Tensor:
        raise NotImplementedError
