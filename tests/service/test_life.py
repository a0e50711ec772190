"""How the service starts, changes its model, loses its engine and ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI

from inference.checkpoint import Checkpoint, save_checkpoint
from inference.posterior import Posterior
from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]

ROOT = Path(__file__).parents[2]
ADMIN = {"X-API-Key": "a" * 16}


class Clients:
    """Some clients that never stop asking, and what they got."""

    def __init__(self, url: str, photo: bytes, number: int = 4) -> None:
        self.answers: list[httpx.Response] = []
        self.failures: list[Exception] = []
        self._url, self._photo, self._stop = url, photo, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(
                        client.post("/v1/infer", content=self._photo, headers=ADMIN)
                    )
                except httpx.ConnectError:  # the server listens no more
                    return
                except Exception as error:
                    self.failures.append(error)
                    return


@pytest.fixture
def folder(checkpoint_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "model"))


def another(folder: Path, checkpoint: Checkpoint, version: str) -> None:
    torch.manual_seed(1)
    network = Posterior(checkpoint.spec, checkpoint.posterior.config).eval()
    save_checkpoint(folder, network, name="random", version=version)


@pytest.fixture
def start(settings: Settings, serve: Serve, until: Until) -> Any:
    @contextmanager
    def start(**options: Any) -> Iterator[httpx.Client]:
        checkpoint = options.pop("checkpoint", settings.checkpoint)
        changed = Settings.model_validate(
            settings.model_dump() | {"checkpoint": checkpoint, "admin_keys": "a" * 16}
        )
        with serve(create_app(changed, **options)) as client:
            client.headers.update(ADMIN)
            until(lambda: client.get("/readyz").status_code == 200)
            yield client

    return start


def test_reload_under_load(
    start: Any, folder: Path, checkpoint: Checkpoint, photo_bytes: bytes, until: Until
) -> None:
    with start(checkpoint=folder) as client:
        with Clients(str(client.base_url), photo_bytes) as clients:
            until(lambda: len(clients.answers) > 8)
            another(folder, checkpoint, "8")
            answer = client.post("/v1/admin/reload")
            assert answer.status_code == 200
            assert answer.json()["version"] == "8"
            until(lambda: clients.answers[-1].json()["model"]["version"] == "8")
        assert not clients.failures
        assert {response.status_code for response in clients.answers} == {200}
        versions = {response.json()["model"]["version"] for response in clients.answers}
        assert versions == {"7", "8"}
        assert client.get("/model").json()["version"] == "8"
        metrics = client.get("/metrics").text
        assert 'version="8"' in metrics and 'version="7"' not in metrics
        assert 'airscene_reloads_total{result="done"} 1.0' in metrics


def test_a_bad_checkpoint_is_refused_and_the_old_one_stays(
    start: Any, folder: Path, photo_bytes: bytes, until: Until
) -> None:
    with start(checkpoint=folder) as client:
        with Clients(str(client.base_url), photo_bytes) as clients:
            until(lambda: len(clients.answers) > 4)
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-100])
            refused = client.post("/v1/admin/reload")
            assert refused.status_code == 409
            assert refused.json()["type"].endswith("reload-refused")
            assert re.search(r"model\.safetensors.*goes on", refused.json()["detail"])
            seen = len(clients.answers)
            until(lambda: len(clients.answers) > seen + 4)
        assert not clients.failures
        assert {response.status_code for response in clients.answers} == {200}
        assert client.get("/readyz").status_code == 200
        assert 'airscene_reloads_total{result="refused"} 1.0' in client.get("/metrics").text


def test_a_model_that_cannot_infer_is_refused(start: Any, canned: Any, photo_bytes: bytes) -> None:
    with start(load=lambda: canned) as client:
        canned.error = RuntimeError("no picture came out")
        refused = client.post("/admin/reload")
        assert refused.status_code == 409
        assert "no picture came out" in refused.json()["detail"]
        canned.error = None
        assert client.post("/infer", content=photo_bytes).status_code == 200


def test_a_dead_engine_refuses_at_once_until_it_is_reloaded(
    start: Any, canned: Any, photo_bytes: bytes, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    with start(load=lambda: canned) as client:
        canned.open.clear()
        canned.error = SystemExit("the driver is gone")
        answers: list[httpx.Response] = []

        def post() -> None:
            answers.append(client.post("/infer", content=photo_bytes))

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: "airscene_queue_depth 4.0" in client.get("/metrics").text)
        canned.open.set()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {503}
        until(lambda: client.get("/readyz").status_code == 503)
        assert "has died" in client.get("/readyz").json()["detail"]
        assert client.post("/infer", content=photo_bytes).status_code == 503
        assert client.get("/healthz").status_code == 200
        assert "the driver is gone" in caplog.text
        canned.error = None
        assert client.post("/admin/reload").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.post("/infer", content=photo_bytes).status_code == 200


@contextmanager
def process(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command itself, ready, and its address."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "AIRSCENE_CHECKPOINT": str(folder),
            "AIRSCENE_ENGINES": "2",
            "AIRSCENE_QUEUE_SECONDS": "60",  # however slow the machine, nothing is turned away
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"(http://127\.0\.0\.1:\d+) ", line := server.stdout.readline())
            assert found is not None, line
            deadline = time.monotonic() + 120
            while True:
                try:
                    if httpx.get(f"{found[1]}/readyz", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield server, found[1]
        finally:
            server.kill()


def test_sigterm_drains_and_sighup_reloads(
    folder: Path, checkpoint: Checkpoint, photo_bytes: bytes, until: Until
) -> None:
    """Under load, and no request is lost."""
    # Long enough for every client to ask again, be it starved: who is silent for so long loses.
    with process(folder, AIRSCENE_DRAIN_DELAY="2", AIRSCENE_LOG_LEVEL="warning") as (server, url):
        with Clients(url, photo_bytes) as clients:
            until(lambda: len(clients.answers) > 8)
            another(folder, checkpoint, "8")
            server.send_signal(signal.SIGHUP)
            until(lambda: clients.answers[-1].json()["model"]["version"] == "8")
            server.send_signal(signal.SIGTERM)
            unready = False
            with httpx.Client(base_url=url, trust_env=False) as prober:
                while not unready:
                    unready = prober.get("/readyz").status_code == 503
            # It still answers, but asks everybody to come back elsewhere.
            last = httpx.post(f"{url}/infer", content=photo_bytes, trust_env=False)
            assert last.status_code == 200
            assert last.headers["connection"] == "close"
            _, log = server.communicate(timeout=60)
        assert not clients.failures
        assert [answer.text for answer in clients.answers if answer.status_code != 200] == []
    assert server.returncode == 0
    assert log == ""


def test_sigterm_waits_for_those_just_let_in(folder: Path) -> None:
    with process(folder, AIRSCENE_DRAIN_DELAY="0", AIRSCENE_LOG_LEVEL="warning") as (server, url):
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        with socket.create_connection(address) as slow:
            server.send_signal(signal.SIGTERM)
            with suppress(ConnectionError):
                while True:
                    socket.create_connection(address).close()
            time.sleep(0.5)  # much longer than it takes to close
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: robot\r\n\r\n")
            assert slow.recv(2**12).startswith(b"HTTP/1.1 200 OK")
        _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    assert log == ""
