"""The commands of `python -m training`, as a user calls them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.plain import PlainConfig
from inference.posterior import Posterior, PosteriorConfig
from renderer import Scene, SceneSpec, open_renderer
from training.cli import main
from training.evaluate import evaluate
from training.experiments import Experiment
from training.loop import RunOptions, train

LEVELS = {"0.5", "0.8", "0.9", "0.95"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in a checkpoint folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    network = PosteriorConfig(
        height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
    )
    posterior = Posterior(SceneSpec.load("tabletop"), network)
    save_checkpoint(folder, posterior, name="untrained")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


def test_render_writes_pictures_with_their_truth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ("--scenes", 3, "--seed", 1, "--height", 48, "--backend", "raycast")
    call(monkeypatch, "render", "tabletop", "--out", tmp_path, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{index:03d}.{kind}" for index in range(3) for kind in ("json", "png")
    ]
    spec = SceneSpec.load("tabletop")
    renderer = open_renderer(spec, height=48, width=48, backend="raycast", supersample=2)
    for index in range(3):
        truth = json.loads((tmp_path / f"{index:03d}.json").read_text())
        scene = Scene.of_records(spec, [truth])
        drawn = renderer.render_bytes(scene)[0].numpy()
        with Image.open(tmp_path / f"{index:03d}.png") as image:
            assert np.array_equal(np.asarray(image), drawn), "the truth draws the picture again"


def test_evaluate_writes_the_promised_keys(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "evaluation.json"
    arguments = ("--scenes", 70, "--seed", 7, "--backend", "raycast", "--json", file)
    call(monkeypatch, "evaluate", checkpoint, *arguments)
    figures = json.loads(file.read_text())
    assert (figures["scenes"], figures["seed"], figures["backend"]) == (70, 7, "raycast")
    for name in ("count_accuracy", "recall", "reconstruction_mse", "count_ece"):
        assert 0 <= figures[name] <= 1
    assert {"identity_accuracy", "precision"} <= figures.keys()
    for name in ("position_error_m", "yaw_error_rad", "azimuth_error_rad"):
        assert figures[name].keys() == {"median", "mean", "p90"}
    for name in ("position", "yaw", "azimuth"):
        assert figures["coverage"][name].keys() == LEVELS
    assert figures["azimuth_error_rad"]["median"] > 0 and figures["calibrated"] is False
    assert figures["ranks"]["azimuth"]["n"] == 70
    assert {"identity_ece", "contraction", "coverage_by_std"} <= figures.keys()
    assert figures["milliseconds_per_image"] > 0
    assert "azimuth_error median" in capsys.readouterr().out


def test_evaluate_measures_refinement_beside_the_single_pass(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "evaluation.json"
    arguments = ("--scenes", 4, "--seed", 7, "--refine", 2, "--json", file)
    call(monkeypatch, "evaluate", checkpoint, *arguments)
    figures = json.loads(file.read_text())
    refined = figures["refined"]
    assert refined["steps"] == 2
    assert refined["reconstruction_mse"] < figures["reconstruction_mse"]
    shared = {"count_accuracy", "recall", "position_error_m", "coverage", "classes"}
    assert shared <= refined.keys() & figures.keys()
    for name in ("milliseconds_per_image", "processor_milliseconds_per_image"):
        assert refined[name]["median"] > 0
    assert "refined: position_error" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["given", "any"])
def test_a_plain_network_trains_and_evaluates(
    order: Literal["given", "any"], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both supervised baselines are an experiment with another network, and nothing more."""
    network = PlainConfig(channels=8, summary=16, hidden=16, blocks=1, order=order)
    experiment = Experiment(
        name="plain", spec="objects", network=network, supersample=1, backend="raycast", batch=8
    )
    again = Experiment.model_validate_json(experiment.model_dump_json())
    assert again == experiment
    train(experiment, RunOptions(out=tmp_path, steps=3, workers=0, threads=1))
    assert load_checkpoint(tmp_path).posterior.config == network
    file = tmp_path / "evaluation.json"
    call(monkeypatch, "evaluate", tmp_path, "--scenes", 70, "--backend", "raycast", "--json", file)
    figures = json.loads(file.read_text())
    assert 0 <= figures["count_accuracy"] <= 1
    assert figures["reconstruction_mse"] > 0


def test_a_graph_for_a_model_that_has_none(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    call(monkeypatch, "graph", folder)
    assert load_checkpoint(folder).graph is not None
    assert load_checkpoint(checkpoint).graph is None


def test_evaluation_depends_on_its_seed_alone(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    first, again, other = (
        evaluate(loaded, scenes=20, seed=seed, backend="raycast") for seed in (1, 1, 2)
    )
    for figures in (first, again, other):
        del figures["milliseconds_per_image"]
    assert first == again
    assert first["azimuth_error_rad"] != other["azimuth_error_rad"]


def test_perfect_answers_evaluate_perfectly(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    """With the truth in place of the network's answer, every figure is the best there is."""
    loaded = load_checkpoint(checkpoint)
    drawn: list[Scene] = []
    from training import inferred as module

    sample = module.sample

    def remember(*args: object, **kwargs: object) -> Scene:
        drawn.append(sample(*args, **kwargs))
        return drawn[-1]

    infer = loaded.posterior.infer

    def cheat(image: torch.Tensor) -> object:
        answer = infer(image)
        return type(answer)(drawn[-1], *list(vars(answer).values())[1:])

    monkeypatch.setattr(module, "sample", remember)
    monkeypatch.setattr(loaded.posterior, "infer", cheat)
    figures = evaluate(loaded, scenes=40, seed=0, backend="raycast")
    for name in ("count_accuracy", "identity_accuracy", "recall", "precision"):
        assert figures[name] == 1.0
    assert figures["position_error_m"]["p90"] == 0.0
    assert figures["reconstruction_mse"] == 0.0
    assert figures["coverage"]["position"] == dict.fromkeys(("0.5", "0.8", "0.9", "0.95"), 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "tabeltop", "--out", "x"), "unknown experiment 'tabeltop'"),
        (("evaluate", "nowhere"), "no such folder"),
        (("calibrate", "nowhere"), "no such folder"),
        (("render", "nothing.yaml", "--out", "x"), "no such file"),
        (("render", "tabletop", "--out", "x", "--scenes", "0"), "--scenes must be at least 1"),
    ],
)
def test_mistakes_are_one_line_that_names_the_mend(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert said in lines[-1]


def test_scenes_of_another_world(checkpoint: Path) -> None:
    """The same objects in other colours are drawn as they are there; other objects are refused."""
    loaded = load_checkpoint(checkpoint)
    own = loaded.spec

    def measured(world: SceneSpec | None) -> dict[str, object]:
        figures = evaluate(loaded, scenes=20, seed=3, backend="raycast", world=world)
        del figures["milliseconds_per_image"], figures["world"]
        return figures

    assert measured(own) == measured(None)
    painted = own.model_copy(update={"table": own.table.model_copy(update={"colour": (0, 0, 1)})})
    assert measured(painted)["reconstruction_mse"] != measured(None)["reconstruction_mse"]
    with pytest.raises(ValueError, match="another camera and objects and greatest count"):
        measured(SceneSpec.load("objects"))
