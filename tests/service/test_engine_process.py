"""An engine in a process of its own does what one in this process does, and outlives its death."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields

import httpx
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from inference.checkpoint import Checkpoint
from inference.estimate import Estimate
from inference.images import Decoder, Picture
from service.app import create_app
from service.engine import Answer, Engine, EngineError
from service.engine_process import EngineLostError, EngineProcess
from service.settings import Settings

Encode = Callable[..., bytes]
Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def process(checkpoint: Checkpoint) -> Iterator[EngineProcess]:
    engine = EngineProcess(Engine, checkpoint, threads=1)
    engine.warm_up()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pictures(photo: Image.Image, encode: Encode) -> list[Picture]:
    turned = (photo, photo.rotate(90), photo.rotate(180))
    return [Decoder(64, 64).decode(encode(image)) for image in turned]


def same(one: Estimate, other: Estimate) -> bool:
    pairs = [(one.scene, other.scene, field.name) for field in fields(one.scene)]
    pairs += [(one, other, field.name) for field in fields(one)[1:]]
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for a, b, name in pairs
    )


def test_answers_as_an_engine_of_this_process(
    process: EngineProcess, checkpoint: Checkpoint, pictures: list[Picture]
) -> None:
    engine = Engine(checkpoint, threads=1)
    expected = engine.infer_batch(pictures)
    for picture, answer, ours in zip(
        pictures, process.infer_batch(pictures), expected, strict=True
    ):
        assert isinstance(answer, Answer) and isinstance(ours, Answer)
        assert answer.checkpoint is checkpoint and answer.picture is picture
        assert same(answer.estimate, ours.estimate)
        assert (answer.boxes, answer.quality) == (ours.boxes, ours.quality)
        assert answer.warnings == ours.warnings
        assert answer.timing.infer > 0
    refined = process.refine(answer, 1, 30.0)
    assert refined.picture is picture and refined.timing.refine > 0
    assert refined.quality.reconstruction_error <= answer.quality.reconstruction_error
    # Nothing of an answer lies in memory that the next one is written to.
    first = answer.estimate.scene.position.clone()
    process.infer_batch(pictures[:1])
    assert torch.equal(answer.estimate.scene.position, first)
    engine.close()


def test_more_pixels_than_shared_memory_holds(
    process: EngineProcess, pictures: list[Picture]
) -> None:
    many = pictures * 115  # of 48 kB each
    (answer, *_), others = process.infer_batch(pictures[:1]), process.infer_batch(many)
    assert isinstance(answer, Answer) and isinstance(others[0], Answer)
    assert len(others) == len(many)
    for k, other in enumerate(others):
        assert isinstance(other, Answer)
        assert other.picture is many[k]
    assert isinstance(others[-3], Answer)
    near = others[-3].estimate.scene.position - answer.estimate.scene.position
    assert float(near.abs().max()) < 1e-4


def test_what_goes_wrong_there_is_told_here(
    process: EngineProcess, picture_of_nan: Picture
) -> None:
    (answer,) = process.infer_batch([picture_of_nan])
    assert isinstance(answer, EngineError) and "finite" in str(answer)
    with pytest.raises(RuntimeError, match="stack"):
        process.infer_batch([])
    with pytest.raises(RuntimeError, match="positive"):
        EngineProcess(Engine, process.checkpoint, threads=-1)


@pytest.fixture
def picture_of_nan(pictures: list[Picture]) -> Picture:
    crop = pictures[0].crop
    return Picture(torch.full((3, 64, 64), torch.nan), 64, 64, crop, "", ())


def test_another_takes_the_place_of_a_dead_one(
    process: EngineProcess,
    pictures: list[Picture],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = process.pid
    os.kill(before, signal.SIGKILL)
    assert len(process.infer_batch(pictures)) == len(pictures)
    assert "exit code -9" in caplog.text
    assert process.pid != before

    def start() -> None:
        raise OSError("no memory")

    os.kill(process.pid, signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_start", start)
        with pytest.raises(EngineLostError):
            process.infer_batch(pictures)
    process._start()  # for whoever comes next


def test_what_kills_every_process_fails(
    process: EngineProcess, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = process._start

    def start_and_die() -> None:
        start()
        os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(process, "_start", start_and_die)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="twice"):
        process.infer_batch(pictures)
    monkeypatch.undo()
    assert len(process.infer_batch(pictures)) == len(pictures)


def test_one_that_hangs_can_be_ended(checkpoint: Checkpoint, pictures: list[Picture]) -> None:
    engine = EngineProcess(Engine, checkpoint, threads=1)
    os.kill(engine.pid, signal.SIGSTOP)
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(EngineLostError, match="ended"):
            engine.infer_batch(pictures)
        ended.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert not ended.wait(0.1)
    engine.kill()
    thread.join(30)
    assert ended.is_set()
    engine.close()


def test_the_service_ends_though_an_engine_hangs(
    settings: Settings, checkpoint: Checkpoint, serve: Serve, photo_bytes: bytes, until: Until
) -> None:
    others = {child.pid for child in multiprocessing.active_children()}
    changed = {"engines": 2, "drain_seconds": 1, "max_seconds": 2.0}
    app = create_app(Settings.model_validate(settings.model_dump() | changed), loaded=checkpoint)
    with serve(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        for pid in {child.pid for child in multiprocessing.active_children()} - others:
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        late = client.post("/infer", content=photo_bytes)
        assert late.status_code == 503 and late.json()["type"].endswith("late")
    until(lambda: {child.pid for child in multiprocessing.active_children()} <= others)


def test_the_service_outlives_the_death_of_an_engine(
    settings: Settings, checkpoint: Checkpoint, serve: Serve, photo_bytes: bytes, until: Until
) -> None:
    others = {child.pid for child in multiprocessing.active_children()}
    changed = Settings.model_validate(settings.model_dump() | {"engines": 2})
    with serve(create_app(changed, loaded=checkpoint)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        engines = {child.pid for child in multiprocessing.active_children()} - others
        assert len(engines) == 2
        for pid in engines:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        answers = [client.post("/infer", content=photo_bytes) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert client.get("/readyz").status_code == 200
    until(lambda: {child.pid for child in multiprocessing.active_children()} <= others)
