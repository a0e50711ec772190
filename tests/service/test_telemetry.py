from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import telemetry
from service.app import create_app
from service.settings import Settings, SettingsError

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


@pytest.fixture
def traced(settings: Settings) -> Settings:
    return settings.model_copy(update={"otel": True})


@pytest.mark.parametrize("missing", telemetry.NEEDED)
def test_what_is_missing_is_named(
    traced: Settings, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(telemetry, "_installed", lambda name: name != missing)
    with pytest.raises(SettingsError, match=rf"{missing}.*airscene\[otel\]"):
        create_app(traced)


def test_requests_are_traced(traced: Settings, serve: Serve, canned: Any) -> None:
    for name in telemetry.NEEDED:
        pytest.importorskip(name)
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with serve(create_app(traced, load=lambda: canned)) as client:
        parent = "4bf92f3577b34da6a3ce929d0e0e4736"
        client.get("/model", headers={"traceparent": f"00-{parent}-00f067aa0ba902b7-01"})
        client.get("/healthz")
        client.get("/metrics")
    spans = exporter.get_finished_spans()
    assert {format(span.context.trace_id, "032x") for span in spans} == {parent}
    assert any("/model" in span.name for span in spans)
