"""The log: a line for people or a JSON object a line, with the id of the request it is about."""

from __future__ import annotations

import json
import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings

# Of the request that is being answered; empty outside of any.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# What a record may bring beside its message, by `extra=`.
FIELDS = ("client", "method", "path", "status", "milliseconds", "problem")


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = getattr(record, "request_id", None) or request_id.get()
        return True


class _Formatter(logging.Formatter):
    def time(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(_Formatter):
    """A JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identity := getattr(record, "request_id", ""):
            line["request_id"] = identity
        line |= {field: getattr(record, field) for field in FIELDS if hasattr(record, field)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class HumanFormatter(_Formatter):
    """Time, level, message and the request's id."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and a traceback where there is one."""
        identity = getattr(record, "request_id", "")
        # Line ends in a message would let a client write lines of its own.
        message = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        line = f"{self.time(record)} {record.levelname:7} {message}"
        line += f" [{identity}]" if identity else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configuration(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`: our log and uvicorn's, on standard error."""
    formatter = JsonFormatter if settings.log_format == "json" else HumanFormatter
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": _RequestId}},
        "formatters": {"line": {"()": formatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["request_id"],
            }
        },
        "loggers": {
            name: {"handlers": ["stderr"], "level": level, "propagate": False}
            for name in ("airscene", "uvicorn")
        },
    }
