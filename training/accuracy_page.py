"""The page on how accurate a model is, and how sure of it: tables, pictures, commands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from inference.checkpoint import Checkpoint
from renderer.spec import SceneSpec
from training import accuracy_figures as figures
from training.accuracy import Measured
from training.dreams import generator_for
from training.evaluate import figures_of
from training.figures import save
from training.inferred import Inferred
from training.metrics import summary
from training.novelty import KNOWN, novelty_figures
from training.page import IMAGES, markdown, number
from training.reliability import SAMPLES

PAGE, DATA = "accuracy.md", "accuracy.json"
SEEN = (0.0, 70.0, 90.0, 99.9, 100.0)  # %, of an object
MACHINE = "two cores of an x86-64 processor, no GPU"


def write_page(checkpoint: Checkpoint, measured: Measured, out: Path) -> Path:
    """Writes the page, its pictures, and its numbers as JSON; returns the page.

    Args:
        checkpoint: the model.
        measured: of it.
        out: where the page goes; made when missing.
    """
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    spec, seed = checkpoint.spec, measured.seed
    passes = {"single pass": measured.own}
    numbers: dict[str, Any] = {"single pass": figures_of(checkpoint, measured.own, seed)}
    if measured.own.refined is not None:
        passes["refined"] = measured.own.refined
        numbers["refined"] = figures_of(checkpoint, measured.own.refined, seed)
        assert measured.own.refine_milliseconds is not None
        clock, processor = measured.own.refine_milliseconds.T
        numbers["refined"]["milliseconds_per_image"] = summary(clock)
        numbers["refined"]["processor_milliseconds_per_image"] = summary(processor)
    for item in measured.elsewhere:
        numbers[item.name] = figures_of(checkpoint, item.inferred, seed)
    novelty = novelty_figures(measured.scores)
    text = [
        _introduction(checkpoint, measured),
        _table(numbers),
        _coverage(numbers),
        _ranks(numbers),
        *_pictures(spec, passes, measured, out),
        "## Knowing what it does not know\n",
        _novelty(novelty),
        _picture(
            figures.roc(measured.scores),
            out,
            "roc",
            "ROC of each foreign kind against known pictures, by `quality.novelty` and by "
            "1 − `quality.explained`.",
        ),
        _picture(
            figures.kinds(measured.scores),
            out,
            "kinds",
            "The first pictures of each kind with their novelty: above 1, `in_distribution` is "
            "false.",
        ),
        _worst(measured, out),
        _commands(measured),
    ]
    data = {
        "checkpoint": checkpoint.name,
        "sha256": checkpoint.sha256,
        "scenes": measured.scenes,
        "seed": seed,
        "backend": measured.backend,
        "refine": measured.steps,
        "measured": numbers,
        "novelty": novelty,
    }
    (out / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    page = out / PAGE
    page.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    return page


def _introduction(checkpoint: Checkpoint, measured: Measured) -> str:
    calibration = checkpoint.config.calibration
    fitted = "It is not calibrated: spreads are as the network and the curvature have them."
    if calibration is not None:
        fitted = (
            f"What it says of its errors was fitted on {calibration.scenes:,} other scenes, "
            f"{calibration.refined_scenes:,} of them refined, a quarter of all with sensor noise, "
            "blur and exposure."
        )
    return f"""# How accurate, and how sure

Made by `python -m training accuracy` of the model `{checkpoint.name}`
({checkpoint.sha256[:8]}): {measured.scenes:,} fresh scenes of seed {measured.seed}, drawn by
{measured.backend}, in a single pass and after up to {measured.steps} steps of render and compare.
{fitted} No evaluation draws a scene that training or calibration have seen.

## What a standard deviation means

`std` is half of the interval that holds the truth with probability 68.3 %, and `covariance` of the
position the ellipse that does so, scaled as a Gaussian's would be. Errors have longer tails than
a Gaussian's, and a cup whose handle is hardly seen may be turned the other way round. So every
answer also says how wide the intervals of 50, 80, 90 and 95 % are (`within`, and `position_within`
in units of the covariance); it is these whose coverage is given below. What becomes of someone who
takes `std` for a Gaussian's is in the last columns.

## In numbers
"""


def _table(numbers: Mapping[str, Any]) -> str:
    header = (
        "pictures", "count", "class", "recall", "position", "yaw", "azimuth", "count ECE",
        "class ECE", "known",
    )  # fmt: skip
    rows = []
    for name, mine in numbers.items():
        rows.append(
            [
                name,
                *(
                    number(mine[key], ".4f")
                    for key in ("count_accuracy", "identity_accuracy", "recall")
                ),
                number(mine["position_error_m"]["median"], ".2f", 1e3, " mm"),
                number(mine["yaw_error_rad"]["median"], ".2f", math.degrees(1), "°"),
                number(mine["azimuth_error_rad"]["median"], ".4f", math.degrees(1), "°"),
                number(mine["count_ece"], ".4f"),
                number(mine["identity_ece"], ".4f"),
                number(mine["in_distribution"], ".3f"),
            ]
        )
    spent = ""
    if "refined" in numbers:
        clock, own = (
            numbers["refined"][f"{kind}_per_image"]
            for kind in ("milliseconds", "processor_milliseconds")
        )
        spent = (
            f"\nRefinement took {own['median']:.0f} ms of processor time an image in the median, "
            f"{own['p90']:.0f} ms for nine in ten ({clock['median']:.0f} ms by the clock, of a "
            "machine that did other work beside).\n"
        )
    return (
        markdown(header, rows)
        + "\nShares of pictures (count), of objects near a true one (class) and of true objects "
        "(recall); median errors of what was found; `known` is the share of pictures that "
        "`in_distribution` calls so.\n" + spent
    )


def _coverage(numbers: Mapping[str, Any]) -> str:
    levels = ("0.5", "0.8", "0.9", "0.95")
    header = (
        "intervals",
        "of",
        *(f"{float(v):.0%}" for v in levels),
        *(f"std: {float(v):.0%}" for v in levels),
        "contraction",
    )
    rows = []
    for name, mine in numbers.items():
        for what, given in mine["coverage"].items():
            plain = mine["coverage_by_std"][what]
            rows.append(
                [
                    name,
                    what,
                    *(number(given[level], ".3f") for level in levels),
                    *(number(plain[level], ".3f") for level in levels),
                    number(mine["contraction"][what], ".5f"),
                ]
            )
    return (
        "## Coverage\n\n"
        + markdown(header, rows)
        + "\nHow often the truth lies within. Contraction is 1 − posterior variance / prior "
        "variance: no wide posterior passes for an honest one.\n"
    )


def _ranks(numbers: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            what,
            str(test["n"]),
            *(f"{test[key]:.3f}" for key in ("ks", "c2st")),
            f"{test['ks_p']:.2g}",
        ]
        for name in ("single pass", "refined")
        if name in numbers
        for what, test in numbers[name]["ranks"].items()
        if test is not None
    ]
    return (
        f"Ranks of the truth among {SAMPLES} posterior samples are uniform if the posterior is "
        "right. KS is the largest distance of the distribution functions, p how often chance alone "
        "makes it as large, c2st how often a classifier tells ranks from uniform ones (0.5: not at "
        "all).\n\n" + markdown(("pass", "of", "n", "KS", "c2st", "p"), rows)
    )


def _pictures(
    spec: SceneSpec, passes: Mapping[str, Inferred], measured: Measured, out: Path
) -> list[str]:
    generator = generator_for("ranks", measured.seed)
    return [
        _picture(
            figures.reliability(spec, passes),
            out,
            "reliability",
            "How often the truth lies within intervals, and how often an answer is right, against "
            "how often it is claimed. Dots are as large as there are answers of that confidence.",
        ),
        _picture(
            figures.ranks(spec, passes, generator),
            out,
            "ranks",
            "Ranks of the truth among 63 posterior samples; 99 % of bars of uniform ones end in "
            "the grey band. `y` is what of y is not known when x is.",
        ),
        "## Errors\n",
        _picture(
            figures.errors(spec, passes), out, "errors", "How many objects are off by how much."
        ),
        _picture(
            figures.confusion(spec, passes),
            out,
            "confusion",
            "What was taken for what, of objects within 5 cm of each other; `nothing` is inferred "
            "of an object that was missed, and true of one that was invented.",
        ),
        _picture(
            figures.against(spec, passes, 100 * measured.shares, "seen, %", SEEN),
            out,
            "occlusion",
            "Errors against which part of an object is seen past the others, and how many objects "
            "that is.",
        ),
        _picture(
            figures.against(spec, passes, measured.distances, "from the camera, m"),
            out,
            "distance",
            "Errors against how far an object is from the camera, in groups of equally many.",
        ),
    ]


def _novelty(novelty: Mapping[str, Any]) -> str:
    rows = [
        [
            kind,
            str(found["pictures"]),
            number(found.get("roc_area"), ".4f"),
            number(found.get("roc_area_explained"), ".4f"),
            number(found["told_novel"], ".3f"),
        ]
        for kind, found in novelty.items()
    ]
    header = ("kind", "pictures", "area, novelty", "area, explained", "told novel")
    missing = ""
    if "foreign objects" not in novelty:
        missing = "\nNo meshes of foreign objects were at hand: set AIR_DATA.\n"
    return (
        "`quality.novelty` is what the drawn scene leaves unexplained where that is most, or the "
        "network's own doubt, over what held-out pictures stay below. Areas under ROC are against "
        f"the known pictures ({KNOWN}: half plain, half with noise, blur and exposure).\n\n"
        + markdown(header, rows)
        + missing
    )


def _worst(measured: Measured, out: Path) -> str:
    if not measured.cases:
        return "## The worst cases\n\nNone: no object was missed, mistaken, displaced or turned.\n"
    return "## The worst cases\n\n" + _picture(
        figures.worst(measured.cases),
        out,
        "worst",
        f"The {len(measured.cases)} answers of the single pass with the most and largest mistakes "
        f"of {measured.scenes:,}: what the camera saw, what was inferred, and what refinement made "
        "of it. How much of an object is seen is said where it is less than 70 %.",
    )


def _commands(measured: Measured) -> str:
    common = f"CHECKPOINT --scenes {measured.scenes} --seed {measured.seed}"
    lines = [
        f"python -m training evaluate {common} {options}"
        for options in (
            f"--refine {measured.steps}",
            *(item.options for item in measured.elsewhere),
        )
    ]
    novel = len(measured.scores[KNOWN].novelty)
    lines.append(f"python -m training accuracy {common} --refine {measured.steps} --novel {novel}")
    return f"## Commands\n\nMachine: {MACHINE}.\n\n```\n" + "\n".join(lines) + "\n```\n"


def _picture(figure: Figure, out: Path, name: str, caption: str) -> str:
    file = save(figure, out / IMAGES / f"accuracy-{name}.png")
    return f"![{caption}]({IMAGES}/{file.name})\n\n*{caption}*\n"
