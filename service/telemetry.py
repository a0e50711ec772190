"""Traces of requests by OpenTelemetry, where it is installed and asked for.

Where they are sent to and under which name is said by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from service.settings import SettingsError


def install(app: FastAPI) -> None:
    """Traces every request of `app` but those of health checks and Prometheus.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"AIRSCENE_OTEL=true needs a package that is missing ({error.name}); install "
            "airscene[otel], or unset it"
        ) from None
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):  # nobody has made one: `opentelemetry-instrument`
        name = os.environ.get("OTEL_SERVICE_NAME", "airscene")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="healthz,readyz,metrics"
    )
