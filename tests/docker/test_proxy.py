"""The proxy's configuration in a real nginx, before two real server processes and a real Redis."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docker" / "nginx.conf"
PHOTO = (ROOT / "examples" / "photos" / "table-06.png").read_bytes()
PNG = {"Content-Type": "image/png"}

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.slow,  # servers start, and start again
    pytest.mark.skipif(NGINX is None, reason="no nginx on this machine"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Replica:
    """One server process."""

    port: int
    redis_url: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {
            "AIRSCENE_BACKEND": "raycast",
            "AIRSCENE_DRAIN_DELAY": "1",
            "AIRSCENE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        if self.redis_url is not None:
            environment["AIRSCENE_REDIS_URL"] = self.redis_url
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", str(self.port)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        assert self.process is not None
        while True:
            assert self.process.poll() is None, "the server did not start"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200:
                    return
            time.sleep(0.1)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


@dataclass
class Stack:
    """nginx and what is behind it."""

    client: httpx.Client
    replicas: list[Replica]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """Of a Redis, where there is one."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    yield f"redis://127.0.0.1:{port}/0"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, redis_url: str | None) -> Iterator[Stack]:
    replicas = [Replica(free_port(), redis_url) for _ in range(2)]
    for replica in replicas:
        replica.start()
    port, folder = free_port(), tmp_path_factory.mktemp("nginx")
    configuration = adapted(CONFIGURATION.read_text(), replicas, port, folder)
    (folder / "nginx.conf").write_text(configuration)
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    # Root's nginx works as nobody, who may not read a test's folder.
    command += ["-g", "daemon off;" + (" user root;" if os.getuid() == 0 else "")]
    try:
        for replica in replicas:
            replica.wait()
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_for(client)
                yield Stack(client, replicas)
        finally:
            proxy.send_signal(signal.SIGQUIT)
            proxy.wait()
    finally:
        for replica in replicas:
            replica.end()


def adapted(text: str, replicas: list[Replica], port: int, folder: Path) -> str:
    """The configuration with this machine's addresses, and limits that a test can wait for."""
    servers = " ".join(
        f"server 127.0.0.1:{replica.port} max_fails=2 fail_timeout=1s;" for replica in replicas
    )
    changes = [
        (r"resolver [^;]+;", ""),
        (r"server airscene:8000 resolve [^;]+;", servers),
        (r"listen 8080 ", f"listen 127.0.0.1:{port} "),
        (r"/tmp/", f"{folder}/"),
        (r"client_body_timeout 15s;", "client_body_timeout 1s;"),
    ]
    for pattern, value in changes:
        text, found = re.subn(pattern, value, text)
        assert found, pattern
    return text


def wait_for(client: httpx.Client) -> None:
    while True:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def both_up(stack: Stack) -> None:
    for replica in stack.replicas:
        if replica.process is None:
            replica.start()
            replica.wait()
    wait_for(stack.client)
    time.sleep(1.1)  # until nginx forgives a replica that was gone


def post(stack: Stack) -> httpx.Response:
    return stack.client.post("/v1/infer", content=PHOTO, headers=PNG)


def counted(replica: Replica, labels: str) -> float:
    """Requests that a replica has answered."""
    text = httpx.get(f"http://127.0.0.1:{replica.port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("airscene_requests_total{")]
    assert lines
    return sum(float(line.split()[-1]) for line in lines if labels in line)


def test_answers_as_the_service_does(stack: Stack) -> None:
    answer = post(stack)
    assert answer.status_code == 200
    assert answer.json()["count"]["value"] == 3
    refused = stack.client.post("/infer", content=b"\0", headers=PNG)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert stack.client.get("/docs").status_code == 200
    given = stack.client.get("/healthz", headers={"X-Request-ID": "robot-7"})
    assert given.headers["x-request-id"] == "robot-7"


def test_what_is_not_for_clients(stack: Stack) -> None:
    for path in ("/metrics", "/v1/metrics", "/admin/reload", "/v1/admin/reload", "/admin/"):
        response = stack.client.post(path) if "reload" in path else stack.client.get(path)
        assert response.status_code == 404
        assert response.json()["detail"].startswith("This address is not for clients")


def test_too_large_a_body(stack: Stack) -> None:
    response = stack.client.post("/infer", content=bytes(43 * 2**20), headers=PNG)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:airscene:problem:too-large"


def test_a_slow_client_never_reaches_a_replica(stack: Stack) -> None:
    url = stack.client.base_url
    with socket.create_connection((url.host, url.port or 0)) as line:
        line.settimeout(30)
        line.sendall(
            b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 100000\r\n\r\n" + bytes(1000)
        )
        assert line.recv(4096) == b""  # nginx hangs up
    for replica in stack.replicas:  # and nothing of it has come
        assert counted(replica, 'status="408"') == counted(replica, 'status="499"') == 0


def test_both_replicas_work(stack: Stack) -> None:
    before = [counted(replica, '/infer",status="200"') for replica in stack.replicas]
    with ThreadPoolExecutor(4) as pool:
        assert {r.status_code for r in pool.map(lambda _: post(stack), range(12))} == {200}
    after = [counted(replica, '/infer",status="200"') for replica in stack.replicas]
    assert all(later > sooner for sooner, later in zip(before, after, strict=True))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_replica_that_ends_costs_nobody_an_answer(stack: Stack, how: signal.Signals) -> None:
    threading.Timer(0.5, stack.replicas[0].end, [how]).start()
    started, codes = time.monotonic(), []
    with ThreadPoolExecutor(3) as pool:
        while time.monotonic() - started < 3.0:
            codes += [r.status_code for r in pool.map(lambda _: post(stack), range(3))]
    assert set(codes) == {200}


def test_nobody_there(stack: Stack) -> None:
    for replica in stack.replicas:
        replica.end()
    response = post(stack)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["type"] == "urn:airscene:problem:not-ready"


def test_streams_and_long_polls_pass_at_once(stack: Stack, redis_url: str | None) -> None:
    if redis_url is None:
        pytest.skip("replicas share cameras in Redis, and there is no redis-server")

    def put() -> None:
        with httpx.Client(base_url=stack.client.base_url, timeout=60) as own:
            response = own.put("/cameras/front/frame", content=PHOTO, headers=PNG)
            assert response.status_code == 200

    put()
    tags = {stack.client.get("/cameras/front/scene").headers["etag"] for _ in range(8)}
    assert len(tags) == 1  # whichever replica answers
    (tag,) = tags
    threading.Timer(0.5, put).start()
    response = stack.client.get("/cameras/front/scene?wait=20", headers={"If-None-Match": tag})
    assert response.json()["source"]["frame"] == 2
    with stack.client.stream("GET", "/cameras/front/events") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines)[6:])["source"]["frame"] == 2
        put()
        assert json.loads(next(lines)[6:])["source"]["frame"] == 3
