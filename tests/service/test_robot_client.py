"""The example of a robot's program, as a robot would run it."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "robot_client.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        return int(caught.value.code or 0)

    return run


def test_says_what_to_reach_for(
    example: Callable[..., int],
    client: httpx.Client,
    photo: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo.save(tmp_path / "photo.jpg")
    assert example(str(tmp_path / "photo.jpg"), "--url", str(client.base_url).rstrip("/")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "object(s)" in "".join(lines)
    # Random weights know nothing: nothing is to be reached for.
    assert all("leave it" in line for line in lines if line.startswith("  "))


def test_repeats_the_services_words(
    example: Callable[..., int],
    client: httpx.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "photo.gif").write_bytes(b"GIF89a" + bytes(20))
    assert example(str(tmp_path / "photo.gif"), "--url", str(client.base_url).rstrip("/")) == 1
    assert "a GIF image" in capsys.readouterr().err
    assert example(str(tmp_path / "photo.gif"), "--url", "http://127.0.0.1:9") == 1
    assert "make serve" in capsys.readouterr().err
    assert example(str(tmp_path / "none.png")) == 1
    assert "none.png" in capsys.readouterr().err
