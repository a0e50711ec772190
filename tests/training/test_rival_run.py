"""Training and measuring rivals of AIR, and AIR on characters, small enough for seconds."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import training.picture_experiments as picture_experiments
import training.rival_experiments as rival_experiments
from inference.air2d import Air2d, Air2dConfig, Estimate2d
from inference.draw import DrawConfig
from inference.vae import VaeConfig
from training.__main__ import main
from training.complexity import Complexity
from training.picture_experiments import PICTURE_EXPERIMENTS, PictureExperiment
from training.pictures import PictureData, Pictures
from training.rival_experiments import RIVAL_EXPERIMENTS, RivalExperiment
from training.rival_run import RivalRun
from training.run import RunOptions
from training.stroke_evaluation import measure_strokes

SPRITES = PictureData(form="sprites", images=64)
DRAW = DrawConfig(channels=3, window=6, steps=3, what=3, hidden=24)
VAE = VaeConfig(channels=3, what=6, encoder=(24, 16), decoder=(24,))
CHARACTERS = Air2dConfig(
    window=8, steps=4, what=4, hidden=16, embedding=16, encoder=(16, 16), decoder=(16,)
)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few images to watch, and a cache and data of the test's own."""
    monkeypatch.setattr("training.image_run.HELD_OUT", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AIR_DATA", str(tmp_path))


def tiny(network: DrawConfig | VaeConfig) -> RivalExperiment:
    return RivalExperiment(
        name="tiny", data=SPRITES, network=network, batch=8, warmup=2, learning_rate=3e-3
    )


@pytest.mark.parametrize("network", [DRAW, VAE], ids=["draw", "vae"])
def test_a_rival_is_trained_and_measured_as_air_is(
    network: DrawConfig | VaeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(rival_experiments.RIVAL_EXPERIMENTS, "tiny", tiny(network))
    out, file = tmp_path / "run", tmp_path / "figures.json"
    bounds = []
    for steps in (1, 40):
        call(monkeypatch, "train", "tiny", "--out", out, "--steps", steps)
        call(monkeypatch, "evaluate", out, "--scenes", 30, "--seed", 4, "--json", file)
        figures = json.loads(file.read_text())
        bounds.append(figures["elbo"])
    assert bounds[0] + 10 < bounds[1] < 7500 * 0.286  # what a perfect picture has
    assert (figures["images"], figures["counts"]) == (30, [0, 1, 2])
    assert 0 < figures["reconstruction_error"] < 0.2
    assert [path.name for path in (out / "training" / "panels").iterdir()]
    call(monkeypatch, "evaluate", out, "--scenes", 10, "--counts", 2, "--json", file)
    harder = json.loads(file.read_text())
    assert harder["counts"] == [2]
    assert harder["reconstruction_error"] > figures["reconstruction_error"]


def test_a_rival_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    ended = []
    for stops in ((4,), (2, 4)):
        options = RunOptions(out=tmp_path / str(len(stops)), steps=4, evaluate_every=2)
        for stop in stops:
            run = RivalRun(tiny(DRAW), options)

            class Stopped(list[int]):
                def __bool__(self, run: RivalRun = run, stop: int = stop) -> bool:
                    return run.step >= stop

            run.go(Stopped())
        ended.append(safetensors.torch.load_file(options.out / "model.safetensors"))
    for name, weights in ended[0].items():
        assert torch.equal(weights, ended[1][name]), name


def test_what_rivals_have_no_use_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(rival_experiments.RIVAL_EXPERIMENTS, "tiny", tiny(VAE))
    out = tmp_path / "run"
    RivalRun(tiny(VAE), RunOptions(out=out, steps=1)).save()
    for arguments, message in (
        (("train", "tiny", "--out", out, "--estimator", "nvil"), "are for AIR"),
        (("train", "tiny", "--out", out, "--start", out), "are for scenes of a renderer"),
        (("evaluate", out, "--nuisance"), "is 2D"),
        (("represent", out), "does not hold a model of 2D images"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, *arguments)
        assert message in capsys.readouterr().err


def test_rivals_have_the_images_and_numbers_of_what_they_are_held_against() -> None:
    draw, vae = RIVAL_EXPERIMENTS["draw"], RIVAL_EXPERIMENTS["omniglot-vae"]
    assert draw.data == PICTURE_EXPERIMENTS["multi-mnist"].data
    characters = PICTURE_EXPERIMENTS["omniglot"]
    assert vae.data == characters.data
    assert isinstance(vae.network, VaeConfig)
    assert vae.network.what == 4 * (characters.network.what + 3)
    # Appendix F.
    assert isinstance(draw.network, DrawConfig)
    sizes = draw.network.steps, draw.network.what, draw.network.hidden, draw.network.window
    assert sizes == (40, 4, 400, 16) and draw.network.std == 0.3


def omniglot(folder: Path) -> None:
    """Characters that are lines of random lengths."""
    random = np.random.default_rng(0)
    for name in ("background", "evaluation"):
        paper = np.ones((4, 20, 105, 105), dtype=bool)
        for drawing in paper.reshape(-1, 105, 105):
            top, left, length = random.integers(10, 90), random.integers(5, 40), random.integers(60)
            drawing[top : top + 3, left : left + 5 + length] = False
        (folder / "omniglot").mkdir(exist_ok=True)
        np.savez(folder / "omniglot" / f"images_{name}.npz", images=paper)


def test_characters_are_measured_by_their_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    omniglot(tmp_path)
    experiment = PictureExperiment(
        name="tiny",
        data=PictureData(form="omniglot", counts=(1,), images=60),
        network=CHARACTERS,
        batch=8,
        warmup=2,
    )
    monkeypatch.setitem(picture_experiments.PICTURE_EXPERIMENTS, "tiny", experiment)
    out, file = tmp_path / "run", tmp_path / "figures.json"
    call(monkeypatch, "train", "tiny", "--out", out, "--steps", 2)
    call(monkeypatch, "evaluate", out, "--scenes", 40, "--json", file)
    figures = json.loads(file.read_text())
    assert "count_accuracy" not in figures  # nobody knows how many strokes there are
    assert sum(figures["steps_shares"].values()) == pytest.approx(1)
    assert set(figures["rank_correlation"]) == {"length", "nodes"}
    errors = figures["reconstruction_error_by_step"]
    assert len(errors) == 5 and min(errors) <= figures["reconstruction_error"] <= max(errors)
    for arguments, message in (
        (("--scenes", 100), "there are 80 drawings of characters"),
        (("--counts", 2), "each is one character"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, "evaluate", out, *arguments)
        assert message in capsys.readouterr().err


class Inky(Air2d):
    """Takes as many steps as there is ink, by tenths of the canvas."""

    def infer(self, image: Tensor) -> Estimate2d:
        steps = (image.mean((1, 2, 3)) * 10).long().clamp(0, 4)
        chances = torch.nn.functional.one_hot(steps, 5).float()
        return replace(super().infer(image), count_probabilities=chances)


def test_steps_are_set_against_the_complexity_of_the_same_drawing() -> None:
    model = Inky(CHARACTERS)
    image = torch.zeros(40, 1, 50, 50, dtype=torch.uint8)
    for i in range(40):
        image[i, 0, : i + 1] = 100  # more and more ink
    lengths, ones = np.arange(40), torch.ones(40, dtype=torch.int64)
    complexity = Complexity(lengths, -lengths)
    found = measure_strokes(model, Pictures(image, ones), complexity, generator=torch.Generator())
    assert found["rank_correlation"]["length"] > 0.9
    assert found["rank_correlation"]["nodes"] < -0.9
    lengths_by_steps = [part["length"] for part in found["complexity_by_steps"].values()]
    assert len(lengths_by_steps) == 4 and lengths_by_steps == sorted(lengths_by_steps)
    same = Pictures(image[:1].expand(40, -1, -1, -1), ones)
    found = measure_strokes(model, same, complexity, generator=torch.Generator())
    assert found["rank_correlation"] == {"length": None, "nodes": None}
