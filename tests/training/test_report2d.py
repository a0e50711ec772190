"""The page's sections on characters, on rivals and on representations, from runs of seconds."""

import gzip
import json
import re
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.air2d import Air2dConfig
from inference.draw import DrawConfig
from inference.vae import VaeConfig
from training import picture_experiments, rival_experiments
from training.__main__ import main
from training.picture_experiments import PictureExperiment
from training.pictures import PictureData
from training.report2d import write_report2d
from training.rival_experiments import RivalExperiment

NETWORK = Air2dConfig(
    window=8, steps=2, what=4, hidden=16, embedding=16, encoder=(16, 16), decoder=(16,)
)
DIGITS = PictureData(form="separate-digits", images=20)
CHARACTERS = PictureData(form="omniglot", counts=(1,), images=20)
RUNS = (
    PictureExperiment(name="multi-mnist", data=DIGITS, network=NETWORK, batch=4),
    PictureExperiment(name="multi-mnist-dair", data=DIGITS, network=NETWORK, batch=4),
    PictureExperiment(name="omniglot-dair", data=CHARACTERS, network=NETWORK, batch=4),
    RivalExperiment(
        name="draw", data=DIGITS, network=DrawConfig(window=5, steps=2, hidden=8), batch=4
    ),
    RivalExperiment(
        name="omniglot-vae",
        data=CHARACTERS,
        network=VaeConfig(what=3, encoder=(8,), decoder=(8,)),
        batch=4,
    ),
)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of each experiment, evaluated."""
    mnist, omniglot = tmp_path / "mnist", tmp_path / "omniglot"
    mnist.mkdir()
    omniglot.mkdir()
    digits = np.zeros((10, 28, 28), dtype=np.uint8)
    digits[:, 10:18, 10:18] = 200
    for name in ("train", "t10k"):
        images = struct.pack(">4i", 2051, 10, 28, 28) + digits.tobytes()
        (mnist / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    random = np.random.default_rng(0)
    for name in ("background", "evaluation"):
        paper = random.random((2, 20, 105, 105)) > 0.02
        np.savez(omniglot / f"images_{name}.npz", images=paper)
    monkeypatch.setenv("AIR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("training.image_run.HELD_OUT", 10)
    monkeypatch.setattr("training.figures_strokes.CHOSEN_FROM", 20)
    folder = tmp_path / "runs"
    for experiment in RUNS:
        if isinstance(experiment, PictureExperiment):
            names, key = picture_experiments.PICTURE_EXPERIMENTS, experiment.name
            monkeypatch.setitem(names, key, experiment)
        else:
            monkeypatch.setitem(rival_experiments.RIVAL_EXPERIMENTS, experiment.name, experiment)
        out = folder / f"{experiment.name}-0"

        def call(*arguments: object) -> None:
            monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
            main()

        call("train", experiment.name, "--out", out, "--steps", 1)
        call("evaluate", out, "--scenes", 10, "--json", out / "evaluation.json")
        if experiment.data.form == "separate-digits":
            three = out / "evaluation-3.json"
            call("evaluate", out, "--scenes", 10, "--counts", 3, "--json", three)
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(lines: list[str]) -> list[dict[str, str]]:
    table = [cells(line) for line in lines if line.startswith("|")]
    assert all(len(row) == len(table[0]) for row in table)
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def figures(folder: Path, name: str = "evaluation") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def test_the_page_says_what_was_compared_and_shows_it(runs: Path, tmp_path: Path) -> None:
    accuracy = {
        task: {"inferences": [0.5, 0.75], "pixels": [0.25, 0.5]} for task in ("sum", "order")
    }
    for seed in (0, 1):
        file = runs / "multi-mnist-0" / f"represent-{seed}.json"
        file.write_text(json.dumps({"seed": seed, "sizes": [100, 1000], "accuracy": accuracy}))
    out = tmp_path / "page"
    page = write_report2d(runs, out)
    assert page is not None
    text = page.read_text()
    sections = {part.splitlines()[0]: part.splitlines() for part in text.split("\n## ")[1:]}

    air, vae = rows(sections["Omniglot"])
    assert (air["model"], vae["model"]) == ("omniglot-dair", "omniglot-vae")
    measured = figures(runs / "omniglot-dair-0")
    assert air["error at 2"] == f"{measured['reconstruction_error_by_step'][2]:.5f}"
    plain = figures(runs / "omniglot-vae-0")
    assert vae["bound, nats"] == f"{plain['elbo']:.1f}"
    assert vae["error"].startswith(f"{plain['reconstruction_error']:.5f} (at best ")

    table = rows(sections["DRAW, AIR and DAIR"])
    assert [row["model"] for row in table] == ["DRAW", "AIR", "DAIR"]
    new = figures(runs / "draw-0", "evaluation-3")
    assert table[0]["only 3 digits"] == f"{-new['elbo']:.1f}"
    assert table[2]["the paper's"] == "-611, -424"

    table = rows(sections["What the inferences are worth"])
    assert len(table) == 8  # two tasks, two ways to see, two seeds
    assert (table[0]["100"], table[0]["1,000"], table[-1]["1,000"]) == ("0.500", "0.750", "0.500")

    shown = set(re.findall(r"\]\(images/([^)]+)\)", text))
    assert shown == {path.name for path in (out / "images").glob("*.png")}
    assert {"2d-omniglot-dair-steps-0.png", "2d-rivals-draw.png"} <= shown
    assert "`omniglot-dair`" not in sections  # nobody knows its counts
    # What was compared stays when its folders are gone, and so do its pictures.
    for name in ("omniglot-dair-0", "draw-0"):
        shutil.rmtree(runs / name)
    write_report2d(runs, out)
    assert page.read_text() == text
