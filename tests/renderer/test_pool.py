"""Several processes draw what one draws, and none of them outlives its use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import renderer.backend
import renderer.pool
from renderer import BackendError, Renderer, Scene, SceneSpec, open_renderer
from renderer.appearance import draw_appearance
from renderer.backend import WindowRenderer
from renderer.cpus import available_cpus
from renderer.differences import Steps, freedoms, perturb, plan
from renderer.differentiable import differentiable_render
from renderer.opengl import create_context
from renderer.pool import PooledRenderer, WorkerError
from renderer.prior import sample
from renderer.windows import change_windows

SIZE: dict[str, Any] = {"height": 40, "width": 56}  # OpenGL rounds edges by the place of a picture


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> SceneSpec:
    """A world with files of its own, in a folder of its own."""
    folder = tmp_path_factory.mktemp("world")
    file = SceneSpec.load("tabletop").save(folder)
    return SceneSpec.build(yaml.safe_load(file.read_text()), folder=folder)


@pytest.fixture(scope="module")
def scene(spec: SceneSpec) -> Scene:
    return sample(spec, 70, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["opengl", "raycast"])
def pair(spec: SceneSpec, request: pytest.FixtureRequest) -> Iterator[tuple[Renderer, Renderer]]:
    """A renderer of one process, and one of several."""
    try:
        one = open_renderer(spec, backend=request.param, **SIZE)
    except BackendError as error:
        pytest.skip(str(error))
    processes = 3 if request.param == "opengl" else 2  # Warp takes seconds to start
    with open_renderer(spec, backend=request.param, processes=processes, **SIZE) as several:  # type: ignore[attr-defined]
        yield one, several
    one.close()


def any_backend() -> str:
    """OpenGL where there is one: it starts sooner."""
    try:
        create_context().free()
    except BackendError:
        return "raycast"
    return "opengl"


def unknown_class(scene: Scene, index: int) -> Scene:
    """The same scenes, but for one with an object of a class that there is not."""
    presence, identity = scene.presence.clone(), scene.identity.clone()
    presence[index, 0], identity[index, 0] = True, 99
    return Scene(presence, identity, scene.position, scene.yaw, scene.azimuth)


# --- the same pictures -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 1, 70, 0, 2, 69])  # also: more room than is needed
def test_pictures_are_those_of_one_process(
    pair: tuple[Renderer, Renderer], scene: Scene, count: int
) -> None:
    one, several = pair
    assert isinstance(several, PooledRenderer) and several.name == one.name
    found = several.render_bytes(scene[:count])
    assert found.shape == (count, 40, 56, 3)
    assert torch.equal(found, one.render_bytes(scene[:count]))
    assert torch.equal(several.render(scene[:count]), one.render(scene[:count]))


def moved_windows(spec: SceneSpec, scene: Scene) -> tuple[Scene, Tensor]:
    """What a gradient draws: moved scenes, and the window of each that can change."""
    free = freedoms(scene, spec.symmetry_orders, azimuth=False)
    differences = plan(free, Steps.for_size(spec, SIZE["height"]), "forward")
    moved = perturb(scene, differences)
    return moved, change_windows(spec, scene, differences, moved, SIZE["height"], SIZE["width"])


def test_appearances_are_those_of_one_process(
    pair: tuple[Renderer, Renderer], scene: Scene
) -> None:
    varied = SceneSpec.load("tabletop-varied")
    looks = draw_appearance(varied, len(scene), generator=torch.Generator().manual_seed(1))
    one, several = pair
    assert looks is not None and isinstance(several, WindowRenderer)
    assert isinstance(one, WindowRenderer)
    found = several.render_bytes(scene, looks)
    assert torch.equal(found, one.render_bytes(scene, looks))
    windows = torch.tensor([[5, 9, 20, 12]]).expand(len(scene), 4)
    found = several.render_windows(scene, windows, looks)
    assert torch.equal(found, one.render_windows(scene, windows, looks))
    assert torch.equal(several.render_bytes(scene), one.render_bytes(scene))


@pytest.mark.parametrize("count", [70, 1, 0])
def test_windows_are_those_of_one_process(
    pair: tuple[Renderer, Renderer], scene: Scene, count: int
) -> None:
    one, several = pair
    assert isinstance(one, WindowRenderer) and isinstance(several, WindowRenderer)
    moved, windows = moved_windows(one.spec, scene[:count])
    found = several.render_windows(moved, windows)
    assert found.shape == (int(windows[:, 2:].prod(dim=1).sum()), 3)
    assert torch.equal(found, one.render_windows(moved, windows))


def test_gradients_are_those_of_one_process(pair: tuple[Renderer, Renderer], scene: Scene) -> None:
    gradients = []
    for drawing in pair:
        leaves = [scene.position.clone(), scene.yaw.clone(), scene.azimuth.clone()]
        for leaf in leaves:
            leaf.requires_grad_()
        picture = differentiable_render(drawing, Scene(scene.presence, scene.identity, *leaves))
        gradients.append(torch.autograd.grad(picture.square().sum(), leaves))
    for found, expected in zip(*gradients, strict=True):
        assert found.any() and torch.equal(found, expected)


def test_other_slots_numbers_and_strides(pair: tuple[Renderer, Renderer], scene: Scene) -> None:
    one, several = pair
    few = scene[scene.count <= 1]
    presence, identity, position, yaw, azimuth = few.tensors()
    narrow = Scene(presence[:, :1], identity[:, :1], position[:, :1], yaw[:, :1], azimuth)
    double = Scene(
        presence, identity, position.double(), yaw.double(), azimuth.double().requires_grad_()
    )
    for other in (narrow, double):
        assert torch.equal(several.render_bytes(other), one.render_bytes(other))
    crowd = Scene.empty(4, 9)
    crowd.presence[:] = True
    with pytest.raises(ValueError, match=r"9 objects, this renderer shows 3; raise count\.max"):
        several.render(crowd)


def test_pictures_are_not_drawn_over_later(pair: tuple[Renderer, Renderer], scene: Scene) -> None:
    first = pair[1].render_bytes(scene[:8])
    kept = first.clone()
    pair[1].render_bytes(scene[8:16])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("index", [0, 69])  # drawn by a worker, and by this process
def test_what_a_worker_trips_over_is_raised_here(
    pair: tuple[Renderer, Renderer], scene: Scene, index: int
) -> None:
    one, several = pair
    with pytest.raises(ValueError, match="a class outside 0 to 2") as caught:
        several.render(unknown_class(scene, index))
    notes = getattr(caught.value, "__notes__", [])
    assert (index == 0) == any("In drawing process" in note for note in notes)
    assert torch.equal(several.render_bytes(scene[:9]), one.render_bytes(scene[:9]))


# --- the end ---------------------------------------------------------------------------------


def test_a_killed_worker_is_an_error_soon(spec: SceneSpec, scene: Scene) -> None:
    drawing = open_renderer(spec, backend=any_backend(), processes=2, **SIZE)
    assert isinstance(drawing, PooledRenderer)
    drawing.render(scene[:4])
    (worker,) = drawing._crew.processes
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"worker 1 of the 1 .* ended by SIGKILL .* is closed"):
        drawing.render(scene)
    assert time.monotonic() - start < 30  # s, however busy the machine: it waits for nobody
    with pytest.raises(RuntimeError, match="this renderer is closed; open another"):
        drawing.render(scene)
    drawing.close()
    drawing.close()


def test_a_worker_killed_before_windows(spec: SceneSpec, scene: Scene) -> None:
    drawing = open_renderer(spec, backend=any_backend(), processes=2, **SIZE)
    assert isinstance(drawing, PooledRenderer)
    moved, windows = moved_windows(spec, scene)
    (worker,) = drawing._crew.processes
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker 1 of the 1 .* ended by SIGKILL .* is closed"):
        drawing.render_windows(moved, windows)
    with pytest.raises(RuntimeError, match="this renderer is closed; open another"):
        drawing.render_windows(moved, windows)


def test_an_interrupted_batch_closes_the_pool(
    spec: SceneSpec, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = open_renderer(spec, backend=any_backend(), processes=2, **SIZE)
    assert isinstance(drawing, PooledRenderer)
    drawing.render(scene)
    crew = drawing._crew
    assert crew.pictures is not None
    (pid,), name = [process.pid for process in crew.processes], crew.pictures.name

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(drawing._own, "render_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawing.render(scene)
    assert pid is not None and not alive(pid)
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    drawing.close()


SCRIPT = textwrap.dedent(
    """
    import json, signal, sys
    from renderer import Scene, SceneSpec, open_renderer

    if __name__ == "__main__":
        told = []
        if sys.argv[2] == "finish":  # as training does, and servers
            signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
        spec = SceneSpec.load("tabletop")
        drawing = open_renderer(spec, height=32, width=32, backend=sys.argv[1], processes=2)
        drawing.render(Scene.empty(64, 3))
        crew = drawing._crew
        names = [crew.scenes.name, crew.pictures.name]
        print(json.dumps([[process.pid for process in crew.processes], names]), flush=True)
        if sys.argv[2] == "fail":
            raise RuntimeError("on purpose")
        while sys.argv[2] == "draw":
            drawing.render(Scene.empty(64, 3))
        while sys.argv[2] == "finish" and not told:
            drawing.render(Scene.empty(64, 3))
        drawing.render(Scene.empty(64, 3))
    """
)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Programs that draw, all started at once."""
    path = tmp_path_factory.mktemp("script") / "draw.py"
    path.write_text(SCRIPT)
    backend = any_backend()
    ways = {"kill": "draw", "interrupt": "draw", "terminate": "finish", "fail": "fail"}
    runs = {
        name: subprocess.Popen(
            [sys.executable, str(path), backend, way],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as from a terminal: Ctrl-C meets the workers too
        )
        for name, way in ways.items()
    }
    yield runs
    for run in runs.values():
        if run.poll() is None:
            run.kill()
        run.communicate()


@pytest.mark.parametrize(
    ("how", "code", "printed"),
    [
        ("kill", -signal.SIGKILL, ""),
        ("interrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("terminate", 0, ""),
        ("fail", 1, "RuntimeError: on purpose"),
    ],
)
def test_nothing_is_left_behind(
    runs: dict[str, subprocess.Popen[str]], how: str, code: int, printed: str
) -> None:
    run = runs[how]
    assert run.stdout is not None and run.stderr is not None
    line = run.stdout.readline()
    assert line, run.stderr.read()
    pids, names = json.loads(line)
    if how == "kill":
        run.kill()
    if how == "interrupt":
        os.killpg(run.pid, signal.SIGINT)
    if how == "terminate":
        os.killpg(run.pid, signal.SIGTERM)
    # Ends when the last process that holds the other end has ended, resource tracker and all.
    _, complaint = run.communicate(timeout=240)
    assert run.returncode == code
    assert printed in complaint and complaint.count("Traceback") == (printed != "")
    assert "leaked" not in complaint and "Exception ignored" not in complaint
    assert len(pids) == 1 and not any(alive(pid) for pid in pids)
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that nobody has waited for is dead all the same
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_script_without_a_guard_ends_with_pythons_explanation(tmp_path: Path) -> None:
    path = tmp_path / "unguarded.py"
    line = 'if __name__ == "__main__":'
    assert line in SCRIPT
    path.write_text(SCRIPT.replace(line, "if True:"))
    done = subprocess.run(
        [sys.executable, str(path), any_backend(), ""],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "before the\n        current process has finished its bootstrapping" in done.stderr
    assert f"open the renderer under `{line}`" in done.stderr


# --- opening ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"processes": 0}, "processes must be at least 1"),
        ({"processes": 2, "device": "cuda"}, "several processes hand over pictures on the CPU"),
    ],
)
def test_what_cannot_be_opened(spec: SceneSpec, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_renderer(spec, backend="raycast", **SIZE, **wrong)


def test_as_many_processes_as_cores(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cpus() >= 1
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, [min(before)])
        try:
            assert available_cpus() == 1
        finally:
            os.sched_setaffinity(0, before)
    monkeypatch.setattr(renderer.backend, "available_cpus", lambda: 1)
    drawing = open_renderer(spec, backend=any_backend(), processes=None, **SIZE)
    assert not isinstance(drawing, PooledRenderer)


def test_a_worker_that_cannot_open_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = SceneSpec.load(SceneSpec.load("objects").save(tmp_path))
    for texture in (tmp_path / "textures").iterdir():
        texture.unlink()
    monkeypatch.setattr(renderer.pool, "open_backend", lambda *_, **__: None)  # here, not there
    with pytest.raises(FileNotFoundError, match="textures"):
        open_renderer(lost, backend=any_backend(), processes=2, **SIZE)
