"""A run that is killed and started again ends exactly where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import training.run
import training.scene_run
from inference.posterior import PosteriorConfig
from training.experiments import Experiment
from training.loop import RunOptions, train
from training.scene_run import SceneRun
from training.state import StateError

STEPS = 12

# A run small enough for seconds; saving after every step, so that a kill can fall anywhere.
SCRIPT = textwrap.dedent(
    f"""
    import sys
    from pathlib import Path
    from inference.posterior import PosteriorConfig
    from training.experiments import Experiment
    from training.loop import RunOptions, train

    if __name__ == "__main__":
        network = PosteriorConfig(
            height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
        )
        tiny = Experiment(
            name="tiny", spec="tabletop", network=network, supersample=1, backend="raycast",
            batch=8, warmup=4,
        )
        train(tiny, RunOptions(
            out=Path(sys.argv[1]), steps={STEPS}, seed=int(sys.argv[2]),
            workers=int(sys.argv[3]), threads=1, save_seconds=0.0, evaluate_every=6,
        ))
    """
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "tiny.py"
    path.write_text(SCRIPT)
    return path


def start(script: Path, out: Path, *, seed: int = 3, workers: int = 0) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(seed), str(workers)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()


def step_of(out: Path) -> int:
    """Steps in the saved state; 0 before there is one."""
    path = out / "training" / "state.safetensors"
    if not path.exists():
        return 0
    # Read in one go: safetensors looks twice, and between the two the run may replace the file.
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["run"])["step"]


def wait_for_step(process: subprocess.Popen[bytes], out: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while step_of(out) < step:
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(start(script, out))
    return out


def assert_same_run(out: Path, reference: Path) -> None:
    for name in ("model.safetensors", "training/state.safetensors"):
        found = safetensors.torch.load_file(out / name)
        expected = safetensors.torch.load_file(reference / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found), name
    rows, expected_rows = (
        json.loads((folder / "config.json").read_text())["training"]["history"]
        for folder in (out, reference)
    )
    assert len(rows) == len(expected_rows) == 2
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert {**row, "seconds": 0} == {**expected_row, "seconds": 0}


def test_run_killed_twice_ends_like_one_that_was_not(
    script: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    for kill_at in (3, 7):
        process = start(script, tmp_path)
        wait_for_step(process, tmp_path, kill_at)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kill_at <= step_of(tmp_path) < STEPS
    finish(start(script, tmp_path))
    assert_same_run(tmp_path, uninterrupted)


def test_ctrl_c_saves_and_a_worker_process_draws_the_same_scenes(
    script: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    process = start(script, tmp_path, workers=1)
    wait_for_step(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    finish(process)
    assert step_of(tmp_path) < STEPS
    finish(start(script, tmp_path, workers=1))
    assert_same_run(tmp_path, uninterrupted)


def test_another_seed_is_another_run_and_is_refused_in_the_same_folder(
    script: Path, uninterrupted: Path
) -> None:
    process = start(script, uninterrupted, seed=4)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert b"is a run with another seed" in output
    assert b"give another --out" in output


def a_tiny_experiment() -> Experiment:
    return Experiment(
        **{"name": "tiny", "spec": "tabletop", "supersample": 1, "batch": 2},
        network=PosteriorConfig(
            **{"height": 32, "width": 32, "channels": 8, "summary": 16, "hidden": 16, "keys": 8},
            blocks=1,
        ),
    )


def test_a_run_keeps_the_backend_that_auto_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = a_tiny_experiment()
    assert tiny.backend == "auto"
    fastest = "raycast"
    monkeypatch.setattr(training.scene_run, "choose_backend", lambda *_, **__: fastest)
    options = RunOptions(out=tmp_path, steps=2, workers=0, threads=1)
    before, after = torch.get_num_threads(), []
    try:
        run = SceneRun(tiny, options)
        run.save()
        fastest = "opengl"
        after = [SceneRun(tiny, options), SceneRun(tiny, replace(options, out=tmp_path / "new"))]
    finally:
        torch.set_num_threads(before)
    assert run.backend == run.dreams.backend == "raycast"
    assert after[0].backend == after[0].dreams.backend == "raycast"
    assert after[1].backend == "opengl"
    assert json.loads((tmp_path / "config.json").read_text())["training"]["backend"] == "raycast"


def test_a_run_of_before_a_setting_was_known_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it could not name has its default; a setting that it named otherwise is another run."""
    tiny = a_tiny_experiment()
    options = RunOptions(out=tmp_path, steps=2, workers=0, threads=1)
    SceneRun(tiny, options).save()
    read_meta = training.run.read_meta

    def of_before(path: Path) -> dict[str, Any]:
        meta = read_meta(path)
        del meta["identity"]["experiment"]["network"]["sharpest"]
        return meta

    monkeypatch.setattr(training.run, "read_meta", of_before)
    assert SceneRun(tiny, options).resumes
    sharper = tiny.network.model_copy(update={"sharpest": 20.0})
    with pytest.raises(StateError, match="another experiment"):
        SceneRun(tiny.model_copy(update={"network": sharper}), options)


@pytest.mark.parametrize(
    ("backend", "workers", "expected"),
    [("raycast", None, ("meta", 0)), ("raycast", 2, ("cpu", 2)), ("opengl", 2, ("cpu", 2))],
)
def test_pictures_are_drawn_where_the_network_is_if_the_backend_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    workers: int | None,
    expected: tuple[str, int],
) -> None:
    monkeypatch.setattr(training.scene_run, "choose_backend", lambda *_, **__: backend)
    before = torch.get_num_threads()
    try:  # a device without contents stands for a card
        options = RunOptions(out=tmp_path, device="meta", precision="float32", workers=workers)
        run = SceneRun(a_tiny_experiment(), options)
    finally:
        torch.set_num_threads(before)
    assert (run.dreams.device, run.workers) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_card_trains_and_goes_on(tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path, device="cuda", steps=4, evaluate_every=2, save_seconds=0.0)
    train(a_tiny_experiment(), replace(options, steps=2))
    train(a_tiny_experiment(), options)
    assert step_of(tmp_path) == 4
    record = json.loads((tmp_path / "config.json").read_text())["training"]
    assert (record["device"], record["backend"]) == ("cuda", "raycast")
