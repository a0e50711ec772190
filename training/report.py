"""The page of results: every model that was evaluated, with tables, pictures and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import figures
from training.page import CAPTIONS, IMAGES, markdown, number, picture, read_json
from training.results import (
    COLLAPSED,
    HEADER,
    METHODS,
    SUMMARY_HEADER,
    Result,
    experiments_of,
    load_results,
    row,
    summary,
)

PAGE, DATA = "results-3d.md", "results-3d.json"

ABOUT = {
    "objects": "One of a red cube, a blue sphere and a textured cylinder, or nothing "
    "(section 3.3; figures 10 and 18 of the paper).",
    "tabletop-fixed": "Up to three of cup, pan and plate, repeats allowed, before a camera that "
    "stays where it is (section 3.3; figures 11 and 12).",
    "tabletop-fixed-once": "The same with each class at most once.",
    "tabletop": "The same with the camera anywhere within ±40° (figure 19).",
    "tabletop-varied": "The same in any light and with colours, camera and noise that differ from "
    "picture to picture; goes on from `tabletop`.",
}

INTRODUCTION = f"""# Attend, Infer, Repeat in 3D

Made by `python -m training figures` from checkpoints and their evaluations; every seed is shown.
Tables tell of every model that was ever put on this page, pictures of those that are at hand.

*Count*, *identity* and *recall* are shares: of images with the right count, of objects within
5 cm of a true one with the right class, of true objects that were found within 5 cm as what they
are. *Position*, *yaw* (modulo the object's symmetry) and *azimuth* are median errors.
*Reconstruction* is the mean squared error of the image drawn again, in grey levels of 1. A model
whose recall is below {COLLAPSED} has collapsed. *Minutes* are of the clock on the wall, and the
machine did other things besides: compare images seen rather than minutes.
"""


def write_report(folder: Path, out: Path) -> Path | None:
    """Writes the page, its pictures, and its numbers as JSON; returns the page.

    Args:
        folder: with evaluated checkpoints anywhere below it; and with what direct descent found on
            an experiment's images in `descent-EXPERIMENT.json`.
        out: where the page goes; made when missing. What a page there tells of models whose folders
            are gone stays on it.

    Returns:
        The page, or None when there is no evaluated checkpoint.

    Raises:
        CheckpointError: one cannot be read.
    """
    published = read_json(out / DATA) or {}
    results = load_results(folder, published)
    if not any(result.folder for result in results):
        return None
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    text = [INTRODUCTION]
    numbers: dict[str, Any] = {}
    for experiment, mine in experiments_of(results).items():
        descent = read_json(folder / f"descent-{experiment}.json")
        descent = descent or published.get(experiment, {}).get("descent")
        text += _section(experiment, mine, descent, out)
        numbers[experiment] = {
            "models": [result.numbers() for result in mine],
            "descent": descent,
        }
    (out / DATA).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    page = out / PAGE
    page.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    return page


def _section(
    experiment: str, results: Sequence[Result], descent: dict[str, Any] | None, out: Path
) -> list[str]:
    text = [f"## `{experiment}`\n", ABOUT.get(experiment, "") + "\n"]
    text.append(markdown(SUMMARY_HEADER, summary(results)))
    drawn = _pictures(results, descent)
    told = read_json(out / IMAGES / CAPTIONS) or {}
    for kind in KINDS:
        file = out / IMAGES / f"3d-{experiment}-{kind}.png"
        if kind in drawn:
            caption, figure = drawn[kind]
            figures.save(figure, file)
        elif file.is_file():  # of models that were at hand once
            caption = told[file.name].removeprefix(f"{experiment}: ")
        else:
            continue
        text.append(picture(file, caption, about=experiment))
    if descent is not None:
        text += _descent(descent)
    text += ["Every seed:\n", markdown(HEADER, [row(result) for result in results])]
    text += _elsewhere(results)
    text += _commands(results)
    return text


KINDS = ("explained", "learning", "aside", "scanning")  # of pictures


def _pictures(
    results: Sequence[Result], descent: dict[str, Any] | None
) -> dict[str, tuple[str, Figure]]:
    """Captions and figures by kind; all but the learning of models at hand."""
    drawn: dict[str, tuple[str, Figure]] = {
        "learning": (
            "Held-out scenes over training, a line for each seed.",
            figures.learning(results),
        ),
    }
    at_hand = [result for result in results if result.folder is not None]
    if not at_hand:
        return drawn
    first = at_hand[0]
    seed = int(first.figures["seed"])
    drawn["explained"] = (
        f"The first {figures.SHOWN} images of the evaluation, and what each method (its first seed "
        "at hand) explains them by, drawn again.",
        figures.explanations(at_hand, descent, seed),
    )
    drawn["aside"] = (
        f"{first.name}, seed {first.seed}: scenes from aside, what was inferred laid over them in "
        "red.",
        figures.overlay(first, seed),
    )
    scans = figures.scanning([result for result in at_hand if result.method == first.method])
    if scans is not None:
        caption = "Where on the table each step finds its object, and which object it is."
        drawn["scanning"] = (f"{METHODS[first.method]}: {caption}", scans)
    return drawn


def _descent(figures: dict[str, Any]) -> list[str]:
    """Direct descent by number of restarts, beside the network that was measured with it."""
    columns = [(f"best of {c['restarts']}", c) for c in figures["descent"]["by_restarts"]]
    times: dict[str, Any] = {f"best of {figures['restarts']}": figures["descent"]}
    if figures["network"] is not None:
        columns.append(("AIR", figures["network"]))
        times["AIR"] = figures["network"]
    rows = [
        [
            name,
            number(column["solved"], ".3f"),
            number(column["count_accuracy"], ".3f"),
            number(column["recall"], ".3f"),
            number(column["position_error_m"]["median"], ".1f", 1e3, " mm"),
            number(times.get(name, {}).get("seconds_per_image"), ".2f", 1e3),
            number(times.get(name, {}).get("cpu_seconds_per_image"), ".2f", 1e3),
        ]
        for name, column in columns
    ]
    header = ("starts", "solved", "count", "recall", "position", "ms an image", "of processor")
    return [
        "Direct descent on the likelihood of each image, from random starts (figure 10d of the "
        f"paper), on {figures['scenes']} images of seed {figures['seed']}: an image is solved if "
        "the count is right and each object is within 5 cm as what it is.\n",
        markdown(header, rows),
    ]


def _elsewhere(results: Sequence[Result]) -> list[str]:
    """What was measured in worlds that the sleep phase never drew."""
    rows = [
        [
            result.name,
            str(result.seed),
            world,
            *(number(figures[key], ".3f") for key in ("count_accuracy", "recall", "precision")),
            number(figures["position_error_m"]["median"], ".1f", 1e3, " mm"),
        ]
        for result in results
        for world, figures in result.evaluations.items()
        if world
    ]
    if not rows:
        return []
    header = ("method", "seed", "world", "count", "recall", "precision", "position")
    return ["In other light and colours:\n", markdown(header, rows)]


def _commands(results: Sequence[Result]) -> list[str]:
    """How to make these numbers again."""
    lines = {
        result.name: (
            f"python -m training train {result.command} --seed {result.seed} --out DIR\n"
            f"python -m training evaluate DIR --scenes {result.figures['scenes']} "
            f"--seed {result.figures['seed']} --json DIR/evaluation.json"
        )
        for result in reversed(results)
    }
    machines = sorted({str(result.training["machine"]) for result in results})
    devices = sorted({str(result.training["device"]) for result in results})
    return [
        f"Machine: {'; '.join(machines)}; device: {', '.join(devices)}. Commands, by method:\n",
        "```\n" + "\n".join(reversed(lines.values())) + "\n```\n",
    ]
