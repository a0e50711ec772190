"""Traces of requests by OpenTelemetry, which FastAPI makes itself where it is asked to.

Where they are sent to and under which name is said by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import importlib.util
import os

from fastapi.telemetry import TelemetryConfig

from service.access import WATCHED
from service.settings import Settings, SettingsError

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def configuration(settings: Settings) -> TelemetryConfig:
    """For `FastAPI(telemetry=…)`: traces of all requests but health checks and metrics, or none.

    Raises:
        SettingsError: they are wanted, and a package for it is not installed.
    """
    if settings.otel:
        for name in NEEDED:
            if not _installed(name):
                raise SettingsError(
                    f"AIRSCENE_OTEL=true needs the package {name}, which is missing; install "
                    "airscene[otel], or unset it"
                )
        os.environ.setdefault("OTEL_SERVICE_NAME", "airscene")
    return {
        "auto_configure": settings.otel,
        "tracing": settings.otel,
        "metrics": False,  # those are Prometheus's
        "logs": False,
        "exclude": lambda scope: bool(WATCHED.fullmatch(scope["path"])),
    }


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # nor is what it would lie in
        return False
