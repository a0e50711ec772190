"""Training and measuring a 2D model that is small enough for seconds."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import training.picture_experiments as experiments
from inference.air2d import Air2dConfig
from inference.checkpoint2d import load_checkpoint2d
from training.__main__ import main
from training.loop import train
from training.picture_evaluation import measure
from training.picture_experiments import PictureExperiment, with_estimator
from training.picture_run import PictureRun
from training.pictures import PictureData, load_pictures
from training.run import RunOptions

NETWORK = Air2dConfig(
    channels=3, window=8, steps=2, what=4, hidden=16, embedding=16, encoder=(16, 16), decoder=(16,)
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PictureExperiment:
    """A small experiment among the built-in ones, which needs no digits."""
    monkeypatch.setattr("training.image_run.HELD_OUT", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    experiment = PictureExperiment(
        name="tiny",
        data=PictureData(form="sprites", images=64),
        network=NETWORK,
        batch=8,
        warmup=2,
        learning_rate=3e-3,
    )
    monkeypatch.setitem(experiments.PICTURE_EXPERIMENTS, "tiny", experiment)
    return experiment


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


def test_training_raises_the_bound_and_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: PictureExperiment
) -> None:
    out, file = tmp_path / "run", tmp_path / "figures.json"
    held_out = load_pictures(tiny.data.model_copy(update={"images": 50}), "test")
    bounds = []
    for steps in (1, 40):
        call(monkeypatch, "train", "tiny", "--out", out, "--steps", steps)
        model = load_checkpoint2d(out).model
        found = measure(model, held_out, generator=torch.Generator().manual_seed(0))
        bounds.append(found["elbo"])
    assert bounds[1] > bounds[0] + 10  # nats
    assert [path.name for path in (out / "training" / "panels").iterdir()]
    call(monkeypatch, "evaluate", out, "--scenes", 30, "--seed", 4, "--json", file)
    figures = json.loads(file.read_text())
    assert (figures["images"], figures["seed"], figures["counts"]) == (30, 4, [0, 1, 2])
    assert 0 <= figures["count_accuracy"] <= 1
    assert bounds[0] < figures["elbo"] < 7500 * 0.286  # what a perfect picture has
    shares = figures["count_accuracy_by_count"]
    assert set(shares) <= {"0", "1", "2"}
    call(monkeypatch, "evaluate", out, "--scenes", 10, "--counts", 2, "--json", file)
    assert set(json.loads(file.read_text())["count_accuracy_by_count"]) == {"2"}


@pytest.mark.parametrize("estimator", ["enumerate", "nvil", "rloo", "vimco"])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    estimator: experiments.EstimatorName, tmp_path: Path, tiny: PictureExperiment
) -> None:
    experiment = with_estimator(tiny, estimator)
    ended = []
    for stops in ((6,), (2, 6)):
        options = RunOptions(out=tmp_path / str(len(stops)), steps=6, evaluate_every=3)
        for stop in stops:
            run = PictureRun(experiment, options)

            class Stopped(list[int]):
                def __bool__(self, run: PictureRun = run, stop: int = stop) -> bool:
                    return run.step >= stop

            run.go(Stopped())
        ended.append(safetensors.torch.load_file(options.out / "model.safetensors"))
    for name, weights in ended[0].items():
        assert torch.equal(weights, ended[1][name]), name


def test_what_scenes_alone_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    tiny: PictureExperiment,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    PictureRun(tiny, RunOptions(out=out, steps=1)).save()
    for arguments, message in (
        (("train", "tiny", "--out", out, "--objective", "sleep"), "are for scenes"),
        (("train", "tiny", "--out", out, "--start", out), "are for scenes of a renderer"),
        (("evaluate", out, "--nuisance"), "is 2D"),
        (("descend", "objects", "--checkpoint", out), "knows no scenes"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, *arguments)
        assert message in capsys.readouterr().err
    other = tiny.model_copy(update={"batch": 4})
    with pytest.raises(ValueError, match="another experiment"):
        PictureRun(other, replace(RunOptions(out=out), steps=1))


def test_the_page_shows_every_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    tiny: PictureExperiment,
) -> None:  # fmt: skip
    runs, page = tmp_path / "runs", tmp_path / "page"
    with pytest.raises(SystemExit):
        call(monkeypatch, "figures", tmp_path, "--out", page)
    assert "holds no evaluated checkpoint" in capsys.readouterr().err
    for seed in (0, 1):
        out = runs / f"tiny-{seed}"
        train(tiny, RunOptions(out=out, seed=seed, steps=2, evaluate_every=1))
        if seed == 0:  # the other one is not measured yet, and is shown all the same
            for name, counts in (("evaluation", ()), ("evaluation-2", ("--counts", 2))):
                file = out / f"{name}.json"
                call(monkeypatch, "evaluate", out, "--scenes", 20, "--json", file, *counts)
    call(monkeypatch, "figures", runs, "--out", page)
    rows = json.loads((page / "results-2d.json").read_text())
    assert [(row["experiment"], row["seed"], row["steps"]) for row in rows] == [
        ("tiny", 0, 2),
        ("tiny", 1, 2),
    ]
    assert 0 <= rows[0]["on_other_counts"]["2"]["count_accuracy"] <= 1
    assert rows[1]["count_accuracy"] is None
    text = (page / "results-2d.md").read_text()
    assert "2 objects: " in text
    shown = set(re.findall(r"\]\((images/[^)]+)\)", text))
    assert shown == {f"images/{path.name}" for path in (page / "images").glob("*.png")}
    assert len(shown) == 6
    captions = json.loads((page / "images" / "captions.json").read_text())
    assert {f"images/{name}" for name in captions} == shown
    # A run whose folder is gone stays, and so do the pictures that were drawn of it.
    shutil.rmtree(runs / "tiny-0")
    call(monkeypatch, "figures", runs, "--out", page)
    assert json.loads((page / "results-2d.json").read_text()) == rows
    assert set(re.findall(r"\]\((images/[^)]+)\)", (page / "results-2d.md").read_text())) == shown
