"""What docs/ says of the service, held against the service."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.metrics import Metrics
from service.settings import Settings

ROOT = Path(__file__).parents[2]
OPERATORS = (ROOT / "docs" / "operators.md").read_text()
ROBOTS = (ROOT / "docs" / "robots.md").read_text()


def test_every_setting_is_told_of() -> None:
    table = OPERATORS[OPERATORS.index("## Settings") : OPERATORS.index("## Keys")]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    names = {name for first, _ in rows for name in re.findall(r"`([A-Z_]+)`", first)}
    assert names == {name.upper() for name in Settings.model_fields} | {"BACKEND"}
    # The plain numbers among the defaults are true.
    for first, second in rows:
        keys = re.findall(r"`([A-Z_]+)`", first)
        values = [value.strip() for value in second.split(",")]
        for key, value in zip(keys, values, strict=False):
            if re.fullmatch(r"\d+(\.\d+)?", value):
                assert float(value) == float(Settings.model_fields[key.lower()].default), key


def test_every_metric_is_told_of() -> None:
    metrics = Metrics()
    metrics.watch(lambda: 0, lambda: 0, lambda: 1)
    text = {family.name for family in metrics.registry.collect()}
    ours = {name for name in text if name.startswith("airscene_")}
    told = {
        re.sub(r"_total$", "", name) for name in re.findall(r"\b(airscene_[a-z_]+)\b", OPERATORS)
    }
    assert told == ours


@pytest.mark.parametrize("text", [OPERATORS, ROBOTS], ids=["operators", "robots"])
def test_routes_that_are_named_exist(text: str) -> None:
    document: dict[str, Any] = create_app(Settings()).openapi()
    patterns = {re.sub(r"\{[a-z]+\}", "[^/]+", path) for path in document["paths"]}
    named = re.findall(r"(?:GET|POST|PUT|DELETE) (/[a-z/{}]+[a-z}])", text)
    named += re.findall(r"127\.0\.0\.1:8000(/[a-z/]+)", text)
    assert named
    for path in named:
        assert any(re.fullmatch(pattern, f"/v1{path}") for pattern in patterns), path


def test_words_of_the_answer_exist() -> None:
    schemas = json.dumps(create_app(Settings()).openapi()["components"]["schemas"])
    for word in ("in_distribution", "bbox3d", "covariance", "symmetry", "std", "samples"):
        assert word in ROBOTS
        assert f'"{word}"' in schemas
