"""Measurements in a file: all that was measured, on what, and how it was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DIGITS = 6  # significant; no clock here knows more


def write(file: Path, result: dict[str, Any]) -> None:
    """Writes JSON with a line for each row, so that two runs can be compared line by line."""
    file.write_text(_text(_rounded(result)) + "\n", encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
        ValueError: the file holds no measurements.
        OSError: there is no such file.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); measure anew") from None
    if not isinstance(result, dict) or not {"machine", "settings", "parts"} <= result.keys():
        raise ValueError(f"{file} holds no measurements of `python -m benchmarks`")
    return result


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measurements of several commands on one machine as if it had been one command.

    Raises:
        ValueError: they are of several machines.
    """
    first, last = results[0], results[-1]
    if any(result["machine"]["processor"] != first["machine"]["processor"] for result in results):
        raise ValueError("the files are of several machines; measure all parts on one")
    parts: dict[str, Any] = {}
    for name, part in (item for result in results for item in result["parts"].items()):
        before = parts.get(name)
        if before is None:
            parts[name] = part
        else:
            parts[name] = {
                **part,
                "took": before["took"] + part["took"],
                "skipped": before["skipped"] | part["skipped"],
                "rows": [*before["rows"], *part["rows"]],
                "laws": [*before["laws"], *part["laws"]],
            }
    loads = {"load_average_afterwards": last["machine"]["load_average_afterwards"]}
    return {
        **first,
        "command": " && ".join(result["command"] for result in results),
        "machine": first["machine"] | loads,
        "parts": parts,
    }


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.{DIGITS}g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
    return value


def _text(value: Any, indent: str = "") -> str:
    """JSON in which only objects that hold tables are spread over lines."""
    deeper = indent + " "
    match value:
        case dict() if _holds_rows(value):
            lines = [f"{json.dumps(key)}: {_text(item, deeper)}" for key, item in value.items()]
            return "{\n" + ",\n".join(deeper + line for line in lines) + f"\n{indent}}}"
        case [dict(), *_]:
            return "[\n" + ",\n".join(deeper + json.dumps(row) for row in value) + f"\n{indent}]"
    return json.dumps(value)


def _holds_rows(value: dict[str, Any]) -> bool:
    """Whether there is a list of objects anywhere below."""
    return any(
        _holds_rows(item) if isinstance(item, dict) else _is_table(item) for item in value.values()
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
