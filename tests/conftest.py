"""What all tests need: measurements of backends that are their own, bytes of image files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import renderer.choice

Encode = Callable[..., bytes]


def pytest_configure(config: pytest.Config) -> None:
    """Of several test processes each takes one core: threads that wait for each other crawl."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def users_cache_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """What `choice.cache_file` was. While tests load the machine, no answer is for the user."""
    original = renderer.choice.cache_file
    file = tmp_path_factory.mktemp("cache") / "backends.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer.choice, "cache_file", lambda: file)
        yield original


@pytest.fixture(scope="session")
def encode() -> Encode:
    """The bytes of an image file."""

    def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encode
