"""What all tests need: measurements of backends that are their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import renderer.choice


@pytest.fixture(scope="session", autouse=True)
def users_cache_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """What `choice.cache_file` was. While tests load the machine, no answer is for the user."""
    original = renderer.choice.cache_file
    file = tmp_path_factory.mktemp("cache") / "backends.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer.choice, "cache_file", lambda: file)
        yield original
