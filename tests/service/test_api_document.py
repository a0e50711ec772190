"""The OpenAPI document against the service that it describes, by schemathesis."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]

ADMIN = {"X-API-Key": "a" * 16, "Authorization": f"Bearer {'a' * 16}"}


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """PNG, JPEG and WebP files, whole or cut off."""
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    image = Image.new(draw(st.sampled_from(["RGB", "L"])), size, draw(st.integers(0, 255)))
    file = io.BytesIO()
    image.save(file, draw(st.sampled_from(["PNG", "JPEG", "WEBP"])))
    data = file.getvalue()
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


for media_type in ("image/png", "image/jpeg", "image/webp"):
    schemathesis.openapi.media_type(media_type, image_files() | st.binary(max_size=100))


@pytest.fixture(scope="module")
def document(
    canned_answer: Any, make_canned: Callable[..., Any], serve: Serve, checkpoint_folder: Path
) -> Iterator[Any]:
    """The document of a service that anybody with an admin's key may do everything with."""
    open_to = Settings.model_validate({"checkpoint": checkpoint_folder, "admin_keys": "a" * 16})
    with serve(create_app(open_to, load=lambda: make_canned(canned_answer))) as client:
        while client.get("/readyz").status_code == 503:
            pass
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


# No schema can say which bytes are an image: what it allows may still be refused.
EXCLUDED = [positive_data_acceptance]

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def check(document: Any, mode: GenerationMode, examples: int) -> None:
    """Each operation with requests that the document allows, or with others."""
    operations = [result.ok() for result in document.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/infer", "/v1/model"}
    for operation in operations:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def validate(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=ADMIN, excluded_checks=EXCLUDED)

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parts
            validate()


@pytest.mark.parametrize("mode", MODES)
def test_it_says_what_the_service_does(document: Any, mode: GenerationMode) -> None:
    check(document, mode, 5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_it_says_what_the_service_does_at_length(document: Any, mode: GenerationMode) -> None:
    check(document, mode, 300)
