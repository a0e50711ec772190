"""From a SceneSpec of one's own to a folder that is ready to be served."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

import training.defaults
import training.experiments
import training.forecast
from inference.checkpoint import load_checkpoint
from inference.posterior import PosteriorConfig
from renderer.spec import SceneSpec
from service.galleries import figures
from service.settings import Settings
from training.cli import main
from training.defaults import default_network, default_steps, pixels_across
from training.stopping import Best, Landing, Stopping

WORLD = {
    "name": "mine",
    "table": {"half_size": [0.5, 0.5], "colour": [0.2, 0.2, 0.2]},
    "camera": {"distance": 1.6, "elevation_deg": 40, "fovy_deg": 45, "azimuth_deg": [-40, 40]},
    "objects": [
        {"name": "dice", "shape": "box", "size": [0.06, 0.06, 0.06], "colour": [0.9, 0.1, 0.1],
         "symmetry": 4},
        {"name": "ball", "shape": "sphere", "size": [0.06], "colour": [0.1, 0.2, 0.9],
         "symmetry": "continuous"},
    ],
    "count": {"max": 2},
    "placement": {"extent": [0.35, 0.35]},
}  # fmt: skip


def world(classes: int = 2, count: int = 2, radius: float = 0.06) -> SceneSpec:
    ball = {**WORLD["objects"][1], "size": [radius]}  # type: ignore[dict-item]
    objects = [{**ball, "name": f"ball-{index}"} for index in range(classes)]
    return SceneSpec.build({**WORLD, "objects": objects, "count": {"max": count}})


def test_a_file_becomes_a_model_that_is_ready_to_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = PosteriorConfig(height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1)
    monkeypatch.setattr(training.experiments, "default_network", lambda spec: tiny)
    monkeypatch.setattr(training.forecast, "SECONDS", 0.1)
    monkeypatch.setenv("AIRSCENE_BACKEND", "raycast")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(WORLD))
    threads = torch.get_num_threads()
    arguments = ("mine.yaml", "--steps", "8", "--workers", "0", "--threads", "1")
    monkeypatch.setattr(sys, "argv", ["training", "train", *arguments])
    try:
        main()
    finally:
        torch.set_num_threads(threads)
    folder = Path("runs/mine")
    said = capsys.readouterr().out
    before, after = said.split("learns for 8 steps, about ")
    assert "2 classes, up to 2 objects" in before and "s a step of 64 pictures" in before
    assert "python -m service serve --checkpoint runs/mine" in after
    model = load_checkpoint(folder)
    assert model.evaluation is not None and model.evaluation["scenes"] == 64
    assert model.card is not None and "dice (4-fold), ball (all)" in model.card
    assert f"{model.evaluation['recall']:.4f}" in model.card
    assert "![" in (folder / "report" / "results-3d.md").read_text()
    assert figures(Settings(checkpoint=folder)).pictures(), "the service's page shows them"
    assert model.config.training["steps"] == model.config.training["of_steps"] == 8
    assert model.config.novelty is not None and model.graph is not None


def test_defaults_grow_with_the_world() -> None:
    small, large = world(), world(classes=10, count=6)
    assert default_network(small).height == 128 and default_steps(small) == 9000
    assert default_network(large).channels > default_network(small).channels
    assert default_steps(large) > default_steps(small)
    tiny = world(radius=0.02)
    assert pixels_across(tiny, 128) < training.defaults.LEAST_ACROSS
    assert pixels_across(tiny, default_network(tiny).height) > 1.4 * pixels_across(tiny, 128)


def row(**changed: float | None) -> dict[str, float | None]:
    good = {"count_accuracy": 1.0, "recall": 1.0, "position_error_m": 0.001}
    return {**good, "yaw_error_rad": None, "azimuth_error_rad": 0.0, **changed}


def test_a_run_ends_when_the_goals_hold_twice() -> None:
    stopping = Stopping()
    assert stopping.reason([row()], 0.1) is None
    assert stopping.reason([row(), row(recall=0.9)], 0.1) is None
    assert stopping.reason([row(), row(yaw_error_rad=0.5)], 0.1) is None, "its yaw is not known yet"
    assert "goals" in str(stopping.reason([row(recall=0.9), row(), row()], 0.1))


def test_a_run_ends_when_nothing_gets_better_but_not_at_its_beginning() -> None:
    stopping = Stopping(patience=3)
    stuck = [row(recall=0.5, position_error_m=0.01) for _ in range(4)]
    assert stopping.reason(stuck, 0.1) is None
    assert "no progress" in str(stopping.reason(stuck, 0.5))
    assert stopping.reason([*stuck, row(recall=0.5, position_error_m=0.005)], 0.5) is None
    assert stopping.reason([*stuck, row(recall=0.6, position_error_m=0.01)], 0.5) is None


def test_schedules_go_on_from_where_they_were_and_end_at_the_end() -> None:
    landing = Landing(first=1000, last=1500, part=0.2)
    assert [landing.at(step) for step in (1000, 1250, 1500)] == pytest.approx([0.2, 0.6, 1.0])


def test_the_last_weights_are_kept_unless_they_are_clearly_worse() -> None:
    network = torch.nn.Linear(1, 1)
    best = Best(network)  # type: ignore[arg-type]
    for step, recall in ((1, 0.9), (2, 0.895), (3, 0.7), (4, 0.888)):
        torch.nn.init.constant_(network.weight, step)
        best.offer(network, step, row(recall=recall))  # type: ignore[arg-type]
    assert best.step == 2 and best.network.weight.item() == 2.0, "measured against the best"


def test_the_figures_of_a_card_are_those_of_its_evaluation() -> None:
    from training.card import write_card

    model = load_checkpoint(Path(__file__).parents[2] / "checkpoints" / "tabletop")
    assert model.evaluation is not None
    card = write_card(model, model.evaluation, None)
    assert f"{model.evaluation['count_accuracy']:.4f}" in card
    assert "cup (none), pan (none), plate (all)" in card
    assert f"{model.evaluation['coverage']['yaw']['0.9']:.3f}" in card
