"""The model card of a trained model: what it sees, how it was trained, how well, where it fails."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from inference.checkpoint import SCENE, Checkpoint
from renderer.spec import SceneSpec
from training.evaluate import table
from training.page import markdown, number

WEAK = 0.9  # recall of a class below which the card warns of it
SURE = {"0.5": "50 %", "0.8": "80 %", "0.9": "90 %", "0.95": "95 %"}


def write_card(model: Checkpoint, figures: dict[str, Any], page: Path | None) -> str:
    """The card as Markdown.

    Args:
        model: that was trained.
        figures: of its evaluation.
        page: with pictures of it, in its folder.
    """
    text = [
        f"# {model.name}\n",
        _sees(model),
        "## Training\n",
        _trained(model),
        "## How well it works\n",
        f"`python -m training evaluate {model.folder.name} --scenes {figures['scenes']} --seed "
        f"{figures['seed']} --backend {figures['backend']}`, on scenes that training never drew:\n",
        markdown(("figure", "value"), [list(line) for line in table(figures)]),
        _sure(figures),
        "## Where it fails\n",
        _fails(model, figures),
    ]
    if page is not None:
        text.append(f"Pictures: [{page.name}]({page.relative_to(model.folder).as_posix()}).\n")
    return "\n".join(text).rstrip() + "\n"


def _sees(model: Checkpoint) -> str:
    spec, network = model.spec, model.posterior.config
    camera = spec.camera
    least, greatest = camera.azimuth_deg
    where = f"anywhere from {least:g}° to {greatest:g}°" if camera.moves else f"at {least:g}°"
    classes = ", ".join(f"{item.name} ({_turns(item.symmetry_order)})" for item in spec.objects)
    return (
        f"Infers up to {spec.count.max} objects of {len(spec.objects)} classes on a table, and the "
        f"azimuth of a camera {where}. The whole world is [`{SCENE}/{model.config.scene}`]"
        f"({SCENE}/{model.config.scene}).\n\n"
        f"- **Classes**, and the turns about the vertical that cannot be seen: {classes}.\n"
        f"- **Input**: one RGB picture, {network.width} × {network.height} px after resizing.\n"
        f"- **Weights**: {sum(p.numel() for p in model.posterior.parameters()):,}, SHA-256 "
        f"`{model.sha256[:16]}…`.\n"
    )


def _turns(order: int) -> str:
    return {0: "all", 1: "none"}.get(order, f"{order}-fold")


def _trained(model: Checkpoint) -> str:
    t = model.config.training
    ended = f"; it ended there because {t['ended']}" if t.get("ended") else ""
    rows = [
        [
            f"{row['step']:,}",
            number(row["seconds"] / 60, ".0f"),
            number(row["count_accuracy"], ".3f"),
            number(row["recall"], ".3f"),
            number(row["position_error_m"], ".1f", 1e3, " mm"),
            number(row["yaw_error_rad"], ".1f", math.degrees(1), "°"),
        ]
        for row in t["history"]
    ]
    header = ("step", "minutes", "count", "recall", "position, median", "yaw, median")
    calibrated = model.config.calibration
    said = (
        f"What it says of its errors was fitted on {calibrated.scenes:,} held-out scenes, "
        f"{calibrated.refined_scenes:,} of them refined."
        if calibrated is not None
        else "What it says of its errors is **not calibrated**: it found too few objects."
    )
    return (
        f"Objective `{t.get('objective', 'sleep')}`, seed {t['seed']}, {t['steps']:,} steps of "
        f"{t['experiment']['batch']} pictures, {t['seconds'] / 60:.0f} minutes of the clock on "
        f"{t['machine']} ({t['device']}, {t['precision']}){ended}. No photo and no label that a "
        "person made was used. On held-out scenes on the way:\n\n"
        f"{markdown(header, rows)}\n{said}\n"
    )


def _sure(figures: dict[str, Any]) -> str:
    rows = [
        [name, *(number(levels[key], ".3f") for key in SURE)]
        for name, levels in figures["coverage"].items()
    ]
    return "How often the truth lies within the intervals that it gives:\n\n" + markdown(
        ("", *SURE.values()), rows
    )


def _fails(model: Checkpoint, figures: dict[str, Any]) -> str:
    spec = model.spec
    lines = [
        f"- It knows this table, these objects, and the camera from {spec.camera.distance:g} m at "
        f"{spec.camera.elevation_deg:g}°{_varied(spec)}. Photos of another look need "
        "`train --images`.",
        f"- More than {spec.count.max} objects are outside of what it can say; "
        "`quality.in_distribution` is false then.",
        "- It was measured on drawn scenes, not on photos of your table.",
    ]
    for name, entry in figures["classes"].items():
        recall = entry["recall"]
        if recall is not None and recall < WEAK:
            lines.append(f"- **{name}** is found in only {100 * recall:.0f} % of cases.")
    return "\n".join(lines) + "\n"


def _varied(spec: SceneSpec) -> str:
    named = {"light": "light", "colour": "colours", "camera_jitter": "place of the camera"}
    varied = [word for key, word in named.items() if getattr(spec.nuisance, key) is not None]
    return (
        f", with {' and '.join(varied)} varied" if varied else ", in this light and these colours"
    )
