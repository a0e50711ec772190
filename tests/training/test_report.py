"""The page of results: all that was evaluated is on it, and nothing that was not."""

import json
from pathlib import Path

import pytest
from PIL import Image

from inference.checkpoint import load_checkpoint
from inference.plain import PlainConfig
from inference.posterior import PosteriorConfig
from training.evaluate import evaluate
from training.experiments import Experiment
from training.loop import RunOptions, train
from training.objectives import WakeConfig
from training.page import markdown, number
from training.report import write_report
from training.results import load_results, summary

SIZE = 32
CELLS = PosteriorConfig(
    height=SIZE, width=SIZE, channels=8, summary=16, hidden=16, keys=8, blocks=1
)
PLAIN = PlainConfig(channels=8, summary=16, hidden=16, blocks=1)
SCENES = 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of one experiment, trained for two steps, evaluated; and one that was not."""
    folder = tmp_path_factory.mktemp("runs")
    common = {"name": "tiny", "spec": "tabletop-fixed", "supersample": 1, "backend": "raycast"}
    nvil = WakeConfig(estimator="nvil", samples=2)
    runs = {
        "sleep/0": ({"network": CELLS}, 0),
        "sleep/1": ({"network": CELLS}, 1),
        "nvil/0": ({"network": PLAIN, "objective": "elbo", "wake": nvil}, 0),
        "forgotten": ({"network": CELLS}, 3),
    }
    for name, (changes, seed) in runs.items():
        experiment = Experiment.model_validate({**common, "batch": 4, "warmup": 1, **changes})
        out = folder / name
        train(experiment, RunOptions(out=out, seed=seed, steps=2, workers=0, threads=1))
        if name != "forgotten":
            figures = evaluate(load_checkpoint(out), scenes=SCENES, seed=7, backend="raycast")
            (out / "evaluation.json").write_text(json.dumps(figures))
    elsewhere = figures | {"recall": 0.123, "world": "evening"}
    (folder / "sleep/1/evaluation-evening.json").write_text(json.dumps(elsewhere))
    return folder


def test_every_evaluated_model_is_told_apart(folder: Path) -> None:
    results = load_results(folder)
    found = [(result.experiment, result.method, result.seed) for result in results]
    assert found == [
        ("tabletop-fixed", "nvil", 0),
        ("tabletop-fixed", "sleep", 0),
        ("tabletop-fixed", "sleep", 1),
    ]
    assert all(result.collapsed for result in results)  # two steps teach nothing
    lines = summary(results)
    assert [line[:3] for line in lines] == [["AIR, NVIL", "1", "1"], ["sleep phase", "2", "2"]]


def test_the_page_has_every_number_and_its_pictures(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder, tmp_path)
    assert page is not None
    text = page.read_text()
    for result in load_results(folder):
        assert number(result.figures["count_accuracy"], ".3f") in text
    assert "| sleep phase | 1 | evening | " in text and "0.123" in text
    assert "train tabletop-fixed --objective elbo --estimator nvil --network plain" in text
    for name in ("explained", "learning", "aside", "scanning"):
        file = tmp_path / "images" / f"3d-tabletop-fixed-{name}.png"
        assert f"(images/{file.name})" in text
        with Image.open(file) as image:
            assert min(image.size) > 100
    captions = json.loads((tmp_path / "images" / "captions.json").read_text())
    assert captions.keys() == {file.name for file in (tmp_path / "images").glob("*.png")}
    numbers = json.loads((tmp_path / "results-3d.json").read_text())["tabletop-fixed"]
    assert [model["seed"] for model in numbers["models"]] == [0, 0, 1]
    assert numbers["models"][2]["evaluations"]["evening"]["recall"] == 0.123


def test_what_was_published_stays_until_it_is_made_again(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path)
    numbers = json.loads((tmp_path / "results-3d.json").read_text())
    models = numbers["tabletop-fixed"]["models"]
    found = models[1]["evaluations"][""]
    gone, older = (
        models[1]
        | {"seed": seed, "collapsed": False, "evaluations": {"": found | {"recall": recall}}}
        for seed, recall in ((5, 0.777), (models[1]["seed"], 0.333))
    )
    numbers["tabletop-fixed"]["models"] = [gone, older]
    numbers["elsewhere"] = {"models": [gone], "descent": None}
    (tmp_path / "results-3d.json").write_text(json.dumps(numbers))
    page = write_report(folder, tmp_path)
    assert page is not None
    text = page.read_text()
    assert "| sleep phase | 5 | " in text and "0.777" in text
    assert "0.333" not in text
    assert "## `elsewhere`" in text
    kept = json.loads((tmp_path / "results-3d.json").read_text())
    assert [model["seed"] for model in kept["tabletop-fixed"]["models"]] == [0, 0, 1, 5]
    assert kept["elsewhere"]["models"] == numbers["elsewhere"]["models"]


def test_where_nothing_was_measured_no_page_is_made(tmp_path: Path) -> None:
    assert write_report(tmp_path, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_tables_line_up() -> None:
    assert markdown(("a", "b"), [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert number(None, ".2f") == "–"
    assert number(0.0123, ".1f", 1e3, " mm") == "12.3 mm"
