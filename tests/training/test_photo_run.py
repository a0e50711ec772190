"""Learning from photos whose scenes nobody tells, and never for the worse."""

from pathlib import Path
from typing import Any

import pytest
import torch

from inference.build import build_posterior
from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.posterior import PosteriorConfig
from renderer import SceneSpec
from training.experiments import Experiment, going_on, starting_point
from training.loop import RunOptions, open_run, train
from training.objectives import WakeConfig
from training.photo_run import PhotoRun
from training.photos import render_photos
from training.run import Run

SIZE = 32
CELLS = PosteriorConfig(
    height=SIZE, width=SIZE, channels=8, summary=16, hidden=16, keys=8, blocks=1
)
STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a world whose table is green."""
    spec = SceneSpec.load("objects")
    green = spec.model_copy(
        update={"table": spec.table.model_copy(update={"colour": (0.2, 0.5, 0.2)})}
    )
    folder = tmp_path_factory.mktemp("photos")
    render_photos(green, folder, scenes=20, seed=4, height=64, backend="raycast", supersample=1)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing."""
    folder = tmp_path_factory.mktemp("start") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        posterior = build_posterior(SceneSpec.load("objects"), CELLS)
    save_checkpoint(folder, posterior, name="tiny")
    return folder


def tiny(start: Path, **changes: object) -> Experiment:
    experiment = Experiment(
        name="tiny", spec="objects", objective="wake-sleep", network=CELLS, supersample=1,
        backend="raycast", wake=WakeConfig(samples=2),
    )  # fmt: skip
    changes = {"batch": 4, "warmup": 1, **changes}
    return going_on(experiment, load_checkpoint(start)).model_copy(update=changes)


class Stopped(list[int]):
    """The wish to stop, as soon as a run has done so many steps."""

    def __init__(self, run: Run[Any], steps: int) -> None:
        super().__init__()
        self.run, self.steps = run, steps

    def __bool__(self) -> bool:
        return self.run.step >= self.steps


def options(out: Path, start: Path, folder: Path) -> RunOptions:
    return RunOptions(out=out, start=start, images=folder, steps=STEPS, threads=1, evaluate_every=4)


def test_a_run_never_ends_with_a_worse_model(folder: Path, start: Path, tmp_path: Path) -> None:
    """Learning too fast ruins the model; the folder still holds the one at the start."""
    out = tmp_path / "out"
    train(tiny(start, learning_rate=10.0), options(out, start, folder))
    found, first = load_checkpoint(out), load_checkpoint(start)
    story = found.config.training["photos"]
    assert story["bound"] >= story["bound_at_the_start"]
    assert found.config.training["start_sha256"] == first.sha256
    assert (found.sha256 == first.sha256) == (story["kept_step"] == 0)
    assert found.config.novelty is not None


def test_a_run_dreams_of_what_photos_look_like(folder: Path, start: Path, tmp_path: Path) -> None:
    run = open_run(tiny(start), options(tmp_path / "out", start, folder))
    assert isinstance(run, PhotoRun)
    assert run.dreams.spec.table.colour == pytest.approx((0.2, 0.5, 0.2), abs=0.02)
    assert run.dreams.spec.nuisance.colour is not None
    assert run.posterior.spec.nuisance.colour is None  # what is kept is what was found
    assert run.wake.renderer.spec.table.colour == run.dreams.spec.table.colour
    run.go([])
    saved = load_checkpoint(tmp_path / "out")
    assert saved.spec.table.colour == (
        run.look.table if run.keeper.best_step else load_checkpoint(start).spec.table.colour
    )
    assert run.look.stage == 2


def test_a_run_goes_on_where_it_was(folder: Path, start: Path, tmp_path: Path) -> None:
    """Bit for bit, with what it had kept and what it had seen photos look like."""
    contents = []
    for name, stops in (("whole", [STEPS]), ("parts", [1, 5, STEPS])):
        for steps in stops:
            run = open_run(tiny(start), options(tmp_path / name, start, folder))
            run.go(Stopped(run, steps))
        contents.append(
            [
                (tmp_path / name / "model.safetensors").read_bytes(),
                load_checkpoint(tmp_path / name).config.training["photos"],
                (tmp_path / name / "scene" / "objects.yaml").read_text(),
            ]
        )
    assert contents[0] == contents[1]


def test_what_cannot_learn_from_photos_says_so(folder: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose --objective wake-sleep"):
        train(tiny(start, objective="sleep"), options(tmp_path, start, folder))
    with pytest.raises(ValueError, match=r"no model to begin with.*--start"):
        train(tiny(start), RunOptions(out=tmp_path, images=folder))


def test_photos_begin_with_the_shipped_model(tmp_path: Path) -> None:
    assert starting_point("tabletop", None, None) is None
    shipped = starting_point("tabletop", None, tmp_path)
    assert shipped is not None
    assert (shipped / "model.safetensors").is_file()
    assert starting_point("tabletop", tmp_path, tmp_path) == tmp_path
    assert starting_point("objects", None, tmp_path) is None
