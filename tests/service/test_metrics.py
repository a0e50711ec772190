import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture
def fresh(client: httpx.Client, settings: Settings, serve: Serve, until: Until) -> Any:
    with serve(create_app(settings)) as fresh:
        until(lambda: fresh.get("/readyz").status_code == 200)
        yield fresh


def test_everything_is_counted(fresh: httpx.Client, photo_bytes: bytes) -> None:
    answers = [fresh.post("/infer", content=photo_bytes).json() for _ in range(2)]
    answers += [fresh.post("/v1/infer", content=photo_bytes).json()]
    assert fresh.post("/infer", content=b"nothing").status_code == 422
    assert fresh.get("/nowhere/at/all").status_code == 404
    assert fresh.request("PROPFIND", "/infer").status_code == 405
    batch = fresh.post("/infer/batch", files=[("images", photo_bytes), ("images", b"x")])
    answers.append(batch.json()["results"][0]["answer"])
    after = read(fresh)

    def requests(**labels: str) -> float:
        return value(after, "airscene_requests_total", **labels)

    # With and without /v1 is one route.
    assert requests(route="/infer", method="POST", status="200") == 3
    assert requests(route="/infer", method="POST", status="422") == 1
    assert requests(route="/infer/batch", method="POST", status="200") == 1
    assert requests(route="none", method="GET", status="404") == 1
    assert not any("nowhere" in str(key) or "PROPFIND" in str(key) for key in after)
    assert value(after, "airscene_request_seconds_count", route="/infer") >= 4
    assert value(after, "airscene_rejected_total", problem="not-an-image") == 2
    assert value(after, "airscene_rejected_total", problem="not-found") == 1
    for stage in ("decode", "queue", "infer", "render"):
        assert value(after, "airscene_stage_seconds_count", stage=stage) == 4
    assert value(after, "airscene_stage_seconds_sum", stage="infer") > 0
    assert value(after, "airscene_batch_size_sum") == 4
    assert value(after, "airscene_queue_depth") == 0
    assert value(after, "airscene_ready") == 1
    objects = [thing["class_id"] for answer in answers for thing in answer["objects"]]
    for name in ("cup", "pan", "plate"):
        assert value(after, "airscene_objects_total", class_id=name) == objects.count(name)
    for count in range(4):
        wanted = sum(answer["count"]["value"] == count for answer in answers)
        assert value(after, "airscene_pictures_total", count=str(count)) == wanted
    foreign = sum(not answer["quality"]["in_distribution"] for answer in answers)
    assert value(after, "airscene_out_of_distribution_total") == foreign
    model = answers[0]["model"]
    assert value(after, "airscene_model_info", **model) == 1
    builds = [dict(labels) for name, labels in after if name == "airscene_build_info"]
    assert [set(build) for build in builds] == [{"version", "python"}]
    assert value(after, "process_open_fds") > 0


def test_open_metrics(fresh: httpx.Client) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = fresh.get("/v1/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert re.search(r"# EOF\s*$", response.text)
