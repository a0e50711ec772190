"""`auto` takes what measures fastest, and remembers it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import renderer.choice
import renderer.opengl
from renderer import BackendError, Scene, SceneSpec, open_renderer
from renderer.backend import Format
from renderer.choice import choose_backend, situation

FORM = Format(height=32, width=32, supersample=1, slots=None)


class Fake:
    """Draws nothing, and the clock says that it took its time."""

    def __init__(self, name: str, bench: Bench) -> None:
        self.name, self.bench, self.closed = name, bench, False

    def render_bytes(self, scene: Scene) -> None:
        self.bench.drawn.append(self.name)
        self.bench.now += self.bench.seconds[self.name] * len(scene)

    def close(self) -> None:
        self.closed = True


class Bench:
    """Backends that take as long as they are told; a missing one cannot be opened."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"opengl": 1e-3, "raycast": 2e-3}
        self.now = 0.0
        self.drawn: list[str] = []
        self.opened: list[Fake] = []

    def perf_counter(self) -> float:
        return self.now

    def open(self, spec: SceneSpec, form: Format, *, backend: str, device: str) -> Fake:
        if backend not in self.seconds:
            raise BackendError(f"no {backend} today")
        self.opened.append(Fake(backend, self))
        return self.opened[-1]


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where answers are kept; nothing is known yet."""
    file = tmp_path / "deep" / "backends.json"
    monkeypatch.setattr(renderer.choice, "cache_file", lambda: file)
    monkeypatch.setattr(renderer.choice, "_found", {})
    monkeypatch.delenv(renderer.choice.OVERRIDE, raising=False)
    return file


@pytest.fixture
def bench(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(renderer.choice, "open_backend", bench.open)
    monkeypatch.setattr(renderer.choice, "perf_counter", bench.perf_counter)
    return bench


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(renderer.choice, "_found", {})


@pytest.mark.parametrize("faster", ["opengl", "raycast"])
def test_the_fastest_is_chosen_and_remembered(
    spec: SceneSpec, bench: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    bench.seconds[faster] = 0.5e-3
    state = torch.get_rng_state()
    assert choose_backend(spec, FORM) == faster
    assert torch.equal(torch.get_rng_state(), state)
    assert all(fake.closed for fake in bench.opened)
    # One after the other, so that what else runs here meets both.
    assert bench.drawn[2:6] == ["opengl", "raycast"] * 2

    ((key, answer),) = json.loads(cache.read_text()).items()
    assert key == situation(spec, FORM) and "32 x 32 px" in key and "3 slots" in key
    assert answer["backend"] == faster
    assert answer["milliseconds_per_picture"][faster] == pytest.approx(0.5)
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]

    bench.seconds.clear()  # nothing could be measured now
    forget(monkeypatch)
    assert choose_backend(spec, FORM) == faster
    with pytest.raises(BackendError):
        choose_backend(spec, FORM, anew=True)


def test_other_pictures_are_measured_by_themselves(spec: SceneSpec, bench: Bench) -> None:
    assert choose_backend(spec, FORM) == "opengl"
    bench.seconds["raycast"] = 1e-4
    assert choose_backend(spec, FORM) == "opengl"
    others: list[Any] = [{"height": 64}, {"width": 64}, {"supersample": 2}, {"slots": 1}]
    for other in others:
        assert choose_backend(spec, {**FORM, **other}) == "raycast"
    assert choose_backend(SceneSpec.load("objects"), FORM) == "raycast"
    assert choose_backend(spec, FORM, device="cuda") == "raycast"


def test_slow_backends_are_not_measured_for_long(spec: SceneSpec, bench: Bench) -> None:
    bench.seconds = {"opengl": 5.0, "raycast": 4.0}
    assert choose_backend(spec, {**FORM, "height": 1024, "width": 1024}) == "raycast"
    assert len(bench.drawn) == 4  # one scene to get ready, one round


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"KEY": 3}', '{"KEY": {"backend": "vulkan"}}', b"\xff\xfe\x00"],
)
def test_a_broken_cache_is_measured_over(
    spec: SceneSpec, bench: Bench, cache: Path, content: str | bytes
) -> None:
    cache.parent.mkdir()
    if isinstance(content, str):
        content = content.replace("KEY", situation(spec, FORM)).encode()
    cache.write_bytes(content)
    assert choose_backend(spec, FORM) == "opengl"
    assert json.loads(cache.read_text())[situation(spec, FORM)]["backend"] == "opengl"


def test_a_cache_that_cannot_be_written_is_no_error(
    spec: SceneSpec, bench: Bench, cache: Path
) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert choose_backend(spec, FORM) == "opengl"
    drawn = len(bench.drawn)
    assert choose_backend(spec, FORM) == "opengl"
    assert len(bench.drawn) == drawn  # at least this process remembers


def test_the_cache_does_not_grow_for_ever(
    spec: SceneSpec, bench: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer.choice, "REMEMBERED", 3)
    for height in range(32, 37):
        choose_backend(spec, {**FORM, "height": height})
    keys = list(json.loads(cache.read_text()))
    for height, key in zip((34, 35, 36), keys, strict=True):
        assert f"32 x {height} px" in key


@pytest.mark.parametrize("left", ["opengl", "raycast"])
def test_what_does_not_open_is_left_out(
    spec: SceneSpec, bench: Bench, cache: Path, left: str
) -> None:
    bench.seconds = {left: 1.0}
    assert choose_backend(spec, FORM) == left
    assert not cache.exists()  # the other may be installed later
    bench.seconds = {}
    with pytest.raises(BackendError, match="opengl: no opengl today; raycast: no raycast today"):
        choose_backend(spec, FORM, anew=True)


def test_kernels_are_not_waited_for_without_end(
    spec: SceneSpec, bench: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = threading.Event()
    opened = bench.open

    def slow(spec: SceneSpec, form: Format, *, backend: str, device: str) -> Fake:
        if backend == "raycast":
            assert compiled.wait(timeout=30)
        return opened(spec, form, backend=backend, device=device)

    monkeypatch.setattr(renderer.choice, "open_backend", slow)
    bench.seconds["raycast"] = 1e-4
    try:
        assert choose_backend(spec, FORM, patience=0.01) == "opengl"
        assert not cache.exists()
    finally:
        compiled.set()
    forget(monkeypatch)
    assert choose_backend(spec, FORM) == "raycast"


def test_the_environment_decides(
    spec: SceneSpec, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRSCENE_BACKEND", "raycast")
    assert choose_backend(spec, FORM) == "raycast"
    assert open_renderer(spec, height=32, width=32).name == "raycast"
    assert not bench.drawn
    monkeypatch.setenv("AIRSCENE_BACKEND", "vulkan")
    with pytest.raises(ValueError, match="AIRSCENE_BACKEND=vulkan names no backend; set opengl or"):
        open_renderer(spec, height=32, width=32)
    monkeypatch.setenv("AIRSCENE_BACKEND", "auto")
    assert choose_backend(spec, FORM) == "opengl"


@pytest.mark.usefixtures("cache")
def test_what_was_remembered_may_be_gone(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> Any:
        raise BackendError("no headless OpenGL here")

    renderer.choice._found[situation(spec, FORM)] = "opengl"
    monkeypatch.setattr(renderer.opengl, "create_context", none_here)
    assert open_renderer(spec, height=32, width=32).name == "raycast"


@pytest.mark.usefixtures("opengl")
def test_a_real_measurement(spec: SceneSpec, cache: Path) -> None:
    chosen = choose_backend(spec, FORM, patience=120)
    (answer,) = json.loads(cache.read_text()).values()
    seconds = answer["milliseconds_per_picture"]
    assert set(seconds) == {"opengl", "raycast"}
    assert 0 < seconds[chosen] == min(seconds.values())
    assert open_renderer(spec, height=32, width=32).name == chosen


def test_the_users_cache_folder(
    users_cache_file: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert users_cache_file() == tmp_path / "airscene" / "backends.json"
    for none in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert users_cache_file() == Path.home() / ".cache" / "airscene" / "backends.json"
