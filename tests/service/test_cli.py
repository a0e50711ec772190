import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.cli import main

Encode = Callable[..., bytes]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path, photo: Image.Image, encode: Encode) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo))
    return path


def test_infer_prints_what_the_server_answers(
    file: Path,
    checkpoint_folder: Path,
    client: httpx.Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["infer", str(file), "--checkpoint", str(checkpoint_folder)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    ours = json.loads(printed.out)
    theirs = client.post("/infer", files={"image": file.read_bytes()}).json()
    assert list(ours) == list(theirs)
    assert ours["request_id"] == str(file)
    for answer in (ours, theirs):
        for key in ("request_id", "stamp", "timing_ms"):
            del answer[key]
    assert ours == theirs


def test_infer_refines(
    file: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["infer", str(file), "--checkpoint", str(checkpoint_folder)]
    assert main([*arguments, "--refine", "2"]) == 0
    refined = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    plain = json.loads(capsys.readouterr().out)
    assert refined["timing_ms"]["refine"] > 0 == plain["timing_ms"]["refine"]
    errors = [one["quality"]["reconstruction_error"] for one in (refined, plain)]
    assert errors[0] <= errors[1]
    assert main([*arguments, "--refine", "99"]) == 2
    assert "--refine 99: give a number from 0 to 20" in capsys.readouterr().err


def test_several_images_some_unusable(
    file: Path, tmp_path: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, cut = tmp_path / "notes.txt", tmp_path / "cut.png"
    text.write_text("no picture")
    cut.write_bytes(file.read_bytes()[:500])
    names = [str(path) for path in (tmp_path / "none.png", file, text, cut, tmp_path, file)]
    assert main(["infer", *names, "--checkpoint", str(checkpoint_folder)]) == 2
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["request_id"] for line in lines] == [str(file), str(file)]
    errors = printed.err.splitlines()
    assert len(errors) == 4
    for error, name, says in zip(
        errors,
        [names[0], names[2], names[3], names[4]],
        ["No such file", "convert it", "send it again", "directory"],
        strict=True,
    ):
        assert error.startswith(f"error: {name}: ")
        assert says in error


def test_mistakes_are_told_in_one_line(
    file: Path,
    tmp_path: Path,
    checkpoint_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def says(*args: str) -> str:
        assert main(args) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        return printed.err

    assert "name at least one" in says("infer")
    for command in (["infer", str(file)], ["serve"]):
        assert "no such folder" in says(*command, "--checkpoint", str(tmp_path / "none"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        message = says("serve", "--checkpoint", str(checkpoint_folder), "--port", port)
        assert "in use" in message and "--port" in message
    assert "--port=70000" in says("serve", "--port", "70000")
    monkeypatch.setenv("AIRSCENE_THREADS", "none")
    assert "AIRSCENE_THREADS=none" in says("infer", str(file))


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sereve"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["infer", "--help"])
    assert caught.value.code == 0
    assert "IMAGE..." in capsys.readouterr().out


def test_serve_and_stop(checkpoint_folder: Path, file: Path) -> None:
    """The command itself: it says where it listens, answers, and ends cleanly on SIGTERM."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    environment = {**os.environ, "AIRSCENE_CHECKPOINT": str(checkpoint_folder)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"serves random 7 on (http://127\.0\.0\.1:\d+) ", line)
            assert found is not None, line
            transport = httpx.HTTPTransport(retries=20)
            with httpx.Client(base_url=found[1], transport=transport, timeout=60) as client:
                for _ in range(600):
                    if client.get("/readyz").status_code == 200:
                        break
                response = client.post("/infer", files={"image": file.read_bytes()})
                assert response.status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
    assert "Application shutdown complete" in log
    assert "Traceback" not in log
    assert process.returncode in (0, -signal.SIGTERM)
