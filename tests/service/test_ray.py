"""The same application on Ray Serve."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

pytest.importorskip("ray.serve", reason="Ray is an extra: pip install 'airscene[ray]'")

import ray
from ray import serve

from inference.checkpoint import CheckpointError
from service.ray_app import NAME, Scale, application, build, settings_of_replica

# Ray's own threads and sockets are not ours to tidy.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_more_at_least_than_at_most_is_refused() -> None:
    with pytest.raises(ValueError, match="least=3 is more than most=2; swap them"):
        Scale(least=3, most=2)


def test_a_missing_checkpoint_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        build(Scale(checkpoint=tmp_path / "nothing"))


@pytest.mark.slow
def test_a_local_cluster_answers_as_the_server_does_and_grows(
    checkpoint_folder: Path, photo: Image.Image, encode: Callable[..., bytes]
) -> None:
    scale = Scale(checkpoint=checkpoint_folder, most=2, ongoing=1, cpus=0.5, upscale_seconds=0)
    body, kind = encode(photo), {"Content-Type": "image/png"}
    with TestClient(application(settings_of_replica(scale))) as client:
        expected = answer_of(client, body, kind)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        serve.run(build(scale), name="test", route_prefix="/")
        with httpx.Client(base_url="http://127.0.0.1:8765", timeout=120) as client:
            assert client.get("/readyz").status_code == 200
            answer = answer_of(client, body, kind)
            for key in ("model", "count", "camera", "objects"):
                assert answer[key] == expected[key]
            refused = client.post("/infer", content=b"nothing", headers=kind)
            assert refused.status_code == 422
            assert refused.headers["Content-Type"] == "application/problem+json"
            deployment = serve.status().applications["test"].deployments[NAME]
            assert sum(deployment.replica_states.values()) == 1
        with httpx.Client(base_url="http://127.0.0.1:8765", timeout=120) as client:
            grown = _grows_under_load(client, body, kind)
        assert grown == 2
    finally:
        serve.shutdown()
        ray.shutdown()


def answer_of(client: httpx.Client, body: bytes, kind: dict[str, str]) -> dict[str, Any]:
    """Once there is one: a busy machine may have to say that it is busy."""
    for _ in range(100):
        answer = client.post("/v1/infer", content=body, headers=kind)
        if answer.status_code != 503:
            break
        time.sleep(0.2)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _grows_under_load(client: httpx.Client, body: bytes, kind: dict[str, str]) -> int:
    """Replicas after more requests at once than one is to have."""
    deadline = time.monotonic() + 240
    with ThreadPoolExecutor(6) as pool:
        while time.monotonic() < deadline:
            list(pool.map(lambda _: client.post("/infer", content=body, headers=kind), range(30)))
            states = serve.status().applications["test"].deployments[NAME].replica_states
            running = {str(getattr(k, "value", k)): n for k, n in states.items()}.get("RUNNING", 0)
            if running == 2:
                break
    return running
