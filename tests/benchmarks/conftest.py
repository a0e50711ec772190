"""What the tests of the benchmarks share. They ask whether figures are right, never how large."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.contenders
from benchmarks.cli import main
from renderer import BackendError, opengl

Run = Callable[..., dict[str, Any]]


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
def alone(has_opengl: bool) -> list[str]:
    """The backends of this machine."""
    return ["opengl", "raycast"] if has_opengl else ["raycast"]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """No contender starts workers: seconds each, and they have a test of their own."""
    monkeypatch.setattr(benchmarks.contenders, "available_cpus", lambda: 1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Measures as the command does, two rounds of two scenes, and returns what it wrote."""

    def measure(*arguments: str) -> dict[str, Any]:
        file = tmp_path / "deep" / "figures.json"
        small = ("--rounds", "2", "--scenes", "2")
        assert main([*small, *arguments, "--json", str(file)]) == 0
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result

    return measure
