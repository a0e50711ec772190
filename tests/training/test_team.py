"""Several processes train one model together: the same gradients, one writer, clear ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from training.state import read_meta
from training.team import ALONE, Team, TeamError, lost_workers

ROOT = Path(__file__).parents[2]
STEPS = 16

GRADIENTS = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    import torch
    from torch import nn
    from inference.posterior import Posterior, PosteriorConfig
    from inference.wakesleep import sleep_loss
    from renderer.prior import sample
    from renderer.spec import SceneSpec
    from training.team import team_of_environment

    class Loss(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, image, scene):
            return sleep_loss(self.network, image, scene).loss

    def gradients(team, world, uses_all):
        # Of one batch shared, and of the whole of it: the greatest, and how far they are off.
        torch.manual_seed(team.rank)  # the lead's weights count
        sizes = dict(height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1)
        network = Posterior(SceneSpec.load(world), PosteriorConfig(**sizes))
        loss = Loss(network)
        shared = team.unite(loss, uses_all=uses_all)
        generator = torch.Generator().manual_seed(5)
        scene = sample(network.spec, 8, generator=generator)
        image = torch.rand(8, 3, 32, 32, generator=generator)
        share = team.share_of(8)
        mine = slice(share * team.rank, share * (team.rank + 1))
        for _ in range(2):  # a step that left something out fails the next one
            network.zero_grad(set_to_none=True)
            shared(image[mine], scene[mine]).backward()
        averaged = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        network.zero_grad(set_to_none=True)
        whole_loss = loss(image, scene)
        whole_loss.backward()
        whole = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        return {
            "same": averaged.keys() == whole.keys(),
            "off": max(float((whole[name] - averaged[name]).abs().max()) for name in whole),
            "greatest": max(float(gradient.abs().max()) for gradient in whole.values()),
            "loss": float(whole_loss.detach()),
            "unused": sum(p.grad is None for p in network.parameters()),
        }

    torch.set_num_threads(1)
    with team_of_environment("cpu") as team:
        seen = {
            "tabletop": gradients(team, "tabletop", True),
            "objects": gradients(team, "objects", False),
            "said": team.tell(team.rank),
            "any": [team.any(team.rank == 1), team.any(False)],
        }
    threads = Path("/proc/self/task")  # of Linux
    names = [thread.joinpath("comm").read_text() for thread in threads.glob("*")]
    seen["left"] = [name for name in names if "gloo" in name]
    open(f"{sys.argv[1]}/{team.rank}.json", "w").write(json.dumps(seen))
    """
)

# A run of the real kind, small enough for seconds; it says which process is which.
RUN = textwrap.dedent(
    f"""
    import os, sys
    from pathlib import Path
    from inference.posterior import PosteriorConfig
    from training.experiments import Experiment
    from training.loop import RunOptions, train
    from training.team import TeamError, team_of_environment

    if __name__ == "__main__":
        network = PosteriorConfig(
            height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
        )
        tiny = Experiment(
            name="tiny", spec="tabletop", network=network, supersample=1, backend="raycast",
            batch=8, warmup=4,
        )
        out = Path(sys.argv[1])
        (out / f"pid-{{os.environ['RANK']}}").write_text(str(os.getpid()))
        try:
            with team_of_environment("cpu", timeout=float(sys.argv[2])) as team:
                train(tiny, RunOptions(
                    out=out, steps={STEPS}, workers=0, threads=1, save_seconds=0.0,
                    evaluate_every=1000, team=team,
                ))
        except TeamError as error:
            sys.exit(f"error: {{error}}")
    """
)


def together(script: str, folder: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """Two processes that know of each other as torchrun would tell them."""
    (folder / "script.py").write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), *map(str, arguments)],
            env={**os.environ, **common, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def test_gradients_are_those_of_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    processes = together(GRADIENTS, tmp_path, tmp_path)
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert not any("Warning" in output for output in outputs), outputs
    lead, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for seen in (lead, other):
        assert seen["left"] == [], "a thread that outlives Python aborts the process"
        assert seen["said"] == 0 and seen["any"] == [True, False]
        for world in ("tabletop", "objects"):
            one = seen[world]
            assert one["same"] and one["greatest"] > 1.0
            assert one["off"] < 1e-5 * one["greatest"], "equal to the last digits of a float"
            assert one["loss"] == lead[world]["loss"], "all have the lead's weights"
    assert lead["tabletop"]["unused"] == 0
    assert lead["objects"]["unused"] > 0, "a camera that does not move has nothing to learn"


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    state, deadline = out / "training" / "state.safetensors", time.monotonic() + 240
    while not state.exists() or read_meta(state)["step"] < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lost_process_ends_the_training_clearly_and_it_goes_on(tmp_path: Path) -> None:
    lead, other = together(RUN, tmp_path, tmp_path, 60)
    wait_for_step(lead, tmp_path, 2)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    said, _ = lead.communicate(timeout=240)
    assert lead.returncode == 1, said
    assert "error: another process of this training is gone" in said
    assert "start again with the same command" in said
    reached = read_meta(tmp_path / "training" / "state.safetensors")["step"]
    assert 2 <= reached < STEPS

    arguments = ("--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py"))
    again = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, str(tmp_path), "60"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert again.returncode == 0, again.stderr
    assert read_meta(tmp_path / "training" / "state.safetensors")["step"] == STEPS
    record = json.loads((tmp_path / "config.json").read_text())["training"]
    assert (record["processes"], record["steps"], record["images"]) == (2, STEPS, 8 * STEPS)
    assert [row["step"] for row in record["history"]] == [STEPS], "measured once, by the lead"
    assert len(list((tmp_path / "training" / "tensorboard").iterdir())) == 2, "a log a start"


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_lost_as_well(tmp_path: Path) -> None:
    lead, other = together(RUN, tmp_path, tmp_path, 3)
    wait_for_step(lead, tmp_path, 1)
    other.send_signal(signal.SIGSTOP)
    try:
        said, _ = lead.communicate(timeout=240)
    finally:
        other.kill()
        other.communicate()
    assert lead.returncode == 1 and "did not answer in time" in said


def test_a_batch_that_cannot_be_shared_is_refused_with_the_mend() -> None:
    assert Team(1, 2).share_of(64) == 32
    with pytest.raises(TeamError, match=r"3 processes cannot share a batch of 64 .*divides"):
        Team(0, 3).share_of(64)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), lost_workers():
        torch.zeros(2).reshape(3)
    assert ALONE.tell("x") == "x" and ALONE.any(True) and ALONE.leads
