"""What the OpenAPI document says beyond what FastAPI finds out itself."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel
from starlette.responses import HTMLResponse

from service.access import OPEN
from service.problems import KINDS, MEDIA_TYPE, ProblemDocument

DESCRIPTION = """
POST a photo of the table to `/v1/infer` and get back what stands on it: how many objects, which
ones, where and turned how, from which angle the camera looks, and how sure the model is of each.

    curl -F image=@photo.jpg http://127.0.0.1:8000/v1/infer

Metres, radians, quaternions x y z w. The table frame has its origin at the centre of the table
top, z up; at azimuth 0 the camera stands at −y looking to +y. Every error is a problem document
(RFC 9457) whose `detail` says what to do; every response has an `X-Request-ID`.

Each address under `/v1` is also there without `/v1`, for hands and scripts; a program that is to
last should name the version. `/metrics` is for Prometheus.
"""

# What browsers may do with answers of ours.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

_BINARY = {"schema": {"type": "string", "format": "binary"}}

REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Comes back in the answer; made by the server when not given, or when it is "
    "longer than 128 characters or not of A-Z a-z 0-9 . _ : / + = @ -",
    "schema": {"type": "string"},
}

INFER: dict[str, Any] = {
    "parameters": [REQUEST_ID],
    "requestBody": {
        "required": True,
        "description": "One PNG, JPEG or WebP image, in any of these forms.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            "image/png": _BINARY,
            "image/jpeg": _BINARY,
            "image/webp": _BINARY,
            "application/octet-stream": _BINARY,
            "application/json": {"schema": {"$ref": "#/components/schemas/ImageUpload"}},
        },
    },
}

INFER_BATCH: dict[str, Any] = {
    "parameters": [REQUEST_ID],
    "requestBody": {
        "required": True,
        "description": "PNG, JPEG or WebP images, in either of these forms.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/ImagesUpload"}},
        },
    },
}

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# Of these, one is enough.
_EITHER: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can end in problems with these statuses."""
    return {
        status: {
            "description": "; ".join(kind.title for kind in KINDS if kind.status == status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


# What any route may answer.
COMMON = problems(401, 429, 500, 503)


def install(app: FastAPI, *models: type[BaseModel], keys: bool) -> None:
    """Completes the document of `app`.

    Args:
        app: whose document it is.
        models: schemas that `INFER` and the like refer to.
        keys: whether requests need an API key.
    """
    generate = app.openapi
    added: tuple[type[BaseModel], ...] = (ProblemDocument, *models)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = generate()
            components = whole.setdefault("components", {})
            for model in added:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components.setdefault("schemas", {})[schema["title"]] = schema
            if keys:
                components["securitySchemes"] = _SECURITY
            for path, operations in whole["paths"].items():
                for operation in operations.values():
                    if keys and not OPEN.fullmatch(path):
                        operation["security"] = _EITHER
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def docs_page(title: str) -> HTMLResponse:
    """Swagger UI from our own files: a robot's network has no other.

    All addresses are relative, so that the page works behind a proxy's prefix too.
    """
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url="static/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui.css",
        swagger_favicon_url="data:,",
        # null: it would send the document's address to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
    )
    # The one script of ours that stands in a page itself; a browser runs no other.
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    page.headers["Content-Security-Policy"] = f"{CONTENT_POLICY}; script-src 'self' {allowed}"
    return page
