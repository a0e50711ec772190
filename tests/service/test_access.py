"""Keys and rates over real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]

KEY, ADMIN = {"X-API-Key": "k" * 16}, {"Authorization": f"Bearer {'a' * 16}"}
PNG = {"Content-Type": "image/png"}


def with_keys(settings: Settings, **more: Any) -> Settings:
    secret = {"api_keys": f"robot:{'k' * 16}", "admin_keys": f"boss:{'a' * 16}"}
    return Settings.model_validate(settings.model_dump() | secret | more)


@pytest.fixture
def guarded(canned: Any, settings: Settings, serve: Serve, until: Until) -> Iterator[httpx.Client]:
    with serve(create_app(with_keys(settings), load=lambda: canned)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_only_known_keys_get_answers(guarded: httpx.Client, photo_bytes: bytes) -> None:
    for path in ("/infer", "/v1/infer", "/v1/infer/batch", "/nothing", "/v1/admin/reload"):
        response = guarded.post(path, content=photo_bytes, headers=PNG)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"].endswith("key-needed")
        assert "X-API-Key: KEY" in response.json()["detail"]
        wrong = {"X-API-Key": "k" * 15, **PNG}
        assert guarded.post(path, content=photo_bytes, headers=wrong).status_code == 401
    for path in ("/model", "/v1/metrics", "/metrics"):
        assert guarded.get(path).status_code == 401
        assert guarded.get(path, headers=KEY).status_code == 200
    for headers in (KEY, ADMIN):
        response = guarded.post("/v1/infer", content=photo_bytes, headers=PNG | headers)
        assert response.status_code == 200


def test_health_and_documentation_stay_open(guarded: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/v1/healthz", "/v1/readyz", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/static/swagger-ui.css").status_code == 200
    document = guarded.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    assert document["paths"]["/v1/infer"]["post"]["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in document["paths"]["/v1/healthz"]["get"]


@pytest.mark.parametrize("path", ["//infer", "/v1//model", "/healthz/../model", "/static/../model"])
def test_no_way_around_the_keys(guarded: httpx.Client, path: str) -> None:
    request = guarded.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    assert guarded.send(request).status_code in (401, 404)


def test_only_admins_reload(guarded: httpx.Client, canned: Any) -> None:
    response = guarded.post("/v1/admin/reload", headers=KEY)
    assert response.status_code == 403
    assert response.json()["type"].endswith("admin-key-needed")
    response = guarded.post("/v1/admin/reload", headers=ADMIN)
    assert response.status_code == 200
    assert response.json()["sha256"] == canned.checkpoint.sha256


def test_without_admin_keys_nobody_reloads(client: httpx.Client) -> None:
    response = client.post("/admin/reload")
    assert response.status_code == 403
    assert response.json()["type"].endswith("admin-off")
    assert "AIRSCENE_ADMIN_KEY_FILE" in response.json()["detail"]


def test_each_client_has_its_rate(
    canned: Any, settings: Settings, serve: Serve, until: Until
) -> None:
    limited = with_keys(settings, rate=0.02, rate_burst=3)
    with serve(create_app(limited, load=lambda: canned)) as client:
        until(lambda: client.get("/readyz").status_code == 200)  # never counts

        def ask(headers: dict[str, str]) -> httpx.Response:
            return client.get("/model", headers=headers)

        assert [ask(KEY).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = ask(KEY)
        assert 45 <= int(refused.headers["retry-after"]) <= 50
        assert refused.json()["type"].endswith("too-often")
        assert "robot" in refused.json()["detail"]
        assert ask(ADMIN).status_code == 200
        # Whoever guesses is slowed down as well, and no right key suffers from it.
        assert [ask({}).status_code for _ in range(4)] == [401, 401, 401, 429]
        assert ask(ADMIN).status_code == 200


def test_without_keys_the_address_counts(
    canned: Any, settings: Settings, serve: Serve, until: Until
) -> None:
    limited = settings.model_copy(update={"rate": 0.02, "rate_burst": 2})
    with serve(create_app(limited, load=lambda: canned)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        statuses = [
            client.get("/model", headers={"X-API-Key": "x" * n}).status_code for n in (16, 17, 18)
        ]
        assert statuses == [200, 200, 429]


def test_pages_of_other_origins(
    canned: Any, settings: Settings, serve: Serve, client: httpx.Client
) -> None:
    page = {"Origin": "https://robots.example"}
    asks = page | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    allowed = "access-control-allow-origin"
    assert allowed not in client.get("/model", headers=page).headers
    assert client.options("/v1/infer", headers=asks).status_code == 405
    open_to = with_keys(settings, cors_origins="https://robots.example, https://b.example")
    with serve(create_app(open_to, load=lambda: canned)) as other:
        preflight = other.options("/v1/infer", headers=asks)  # which never bring a key
        assert preflight.status_code == 200
        assert preflight.headers[allowed] == "https://robots.example"
        assert other.get("/model", headers=page).headers[allowed] == "https://robots.example"
        stranger = other.get("/healthz", headers={"Origin": "https://evil.example"})
        assert allowed not in stranger.headers


def test_security_headers(client: httpx.Client) -> None:
    for path in ("/healthz", "/nothing", "/docs", "/static/swagger-ui.css"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
