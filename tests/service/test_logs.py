import json
import logging

import pytest

from service import logs
from service.logs import HumanFormatter, JsonFormatter, configuration
from service.settings import Settings


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("airscene").makeRecord(
        "airscene", logging.INFO, "file.py", 1, message, (), None, extra=extra
    )
    made.created = 1.5
    return made


def test_json_lines_hold_the_fields() -> None:
    fields = {"status": 200, "path": "/infer", "milliseconds": 1.25, "request_id": "frame-1"}
    line = JsonFormatter().format(record("done\nnow", **fields))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "airscene",
        "message": "done\nnow",
        **fields,
    }


def test_errors_bring_their_traceback() -> None:
    failed = record("it failed")
    try:
        raise ValueError("why")
    except ValueError as error:
        failed.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError: why" in json.loads(JsonFormatter().format(failed))["exception"]
    assert HumanFormatter().format(failed).endswith("ValueError: why")


def test_nobody_writes_lines_of_his_own() -> None:
    line = HumanFormatter().format(record("GET /x\r\n2026 ERROR fake", request_id="frame-1"))
    assert line == "1970-01-01T00:00:01.500Z INFO    GET /x\\r\\n2026 ERROR fake [frame-1]"


@pytest.mark.parametrize(
    ("form", "formatter"), [("json", JsonFormatter), ("human", HumanFormatter)]
)
def test_settings_choose_the_form(form: str, formatter: type) -> None:
    made = configuration(Settings.model_validate({"log_format": form, "log_level": "warning"}))
    assert made["formatters"]["line"]["()"] is formatter
    assert {logger["level"] for logger in made["loggers"].values()} == {"WARNING"}


def test_records_know_their_request() -> None:
    name = configuration(Settings())["filters"]["request_id"]["()"]
    token = logs.request_id.set("frame-9")
    try:
        inside = record("deep inside")
        assert name().filter(inside)
    finally:
        logs.request_id.reset(token)
    assert json.loads(JsonFormatter().format(inside))["request_id"] == "frame-9"
