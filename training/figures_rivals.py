"""The page's section on DRAW: free energy on counts known and new (table 1; figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from inference.checkpoint2d import load_checkpoint2d
from inference.checkpoint_rival import load_rival
from training.measured import Measured, commands, of
from training.page import markdown, number, picture
from training.panels import images_panel, save_panel, windows_panel
from training.picture_evaluation import evaluation_set
from training.picture_experiments import PICTURE_EXPERIMENTS
from training.pictures import load_pictures

NAMES = {"draw": "DRAW", "multi-mnist": "AIR", "multi-mnist-dair": "DAIR"}
PAPER = {"draw": (-637, -406), "multi-mnist": (-620, -316), "multi-mnist-dair": (-611, -424)}
NEW = (3,)  # digits of an image, of which training saw up to two
SHOWN = 12  # images in a row

INTRODUCTION = """\
Free energy is minus the bound, nats: lower is better (appendix F, table 1). All three learned from
the same images of no, one or two digits, in the time of one processor that the table says, which is
much less than the paper's models had. DRAW takes forty steps for an image, as in the paper, and so
it came to see far fewer of them.
"""


def rivals_section(measured: Sequence[Measured], images: Path) -> list[str]:
    """DRAW against AIR and DAIR, every seed, as Markdown; nothing where no DRAW was evaluated.

    Args:
        measured: the runs, with what was measured on exactly three digits.
        images: folder for the pictures.

    Raises:
        DataError: MNIST is not there.
    """
    if not of(measured, "draw"):
        return []
    header = (
        *("model", "seed", "training steps", "processor s"),
        *("free energy, up to 2 digits", "only 3 digits", "the paper's"),
    )
    rows = [
        [
            NAMES[run.name],
            *run.cells()[1:4],
            number(-run.figures["elbo"], ".1f"),
            number(_on_new(run), ".1f"),
            "{}, {}".format(*PAPER[run.name]),
        ]
        for run in of(measured, *NAMES)
    ]
    text = ["## DRAW, AIR and DAIR\n", INTRODUCTION, markdown(header, rows)]
    for name, called in NAMES.items():
        file = images / f"2d-rivals-{name}.png"
        at_hand = [run for run in of(measured, name) if run.folder is not None]
        if at_hand:
            save_panel(torch.cat([_panel(run) for run in at_hand], 1), file)
        if file.is_file():
            caption = (
                f"Images of three digits above what {called} makes of them, which learned from up "
                "to two; a pair of rows for each seed."
            )
            text.append(picture(file, caption, about=called))
    return [*text, commands(of(measured, *NAMES))]


def _on_new(run: Measured) -> float | None:
    """Free energy on images with a count that training never showed."""
    found = [e for e in run.beside("evaluation") if tuple(e["counts"]) == NEW]
    return -float(found[0]["elbo"]) if found else None


def _panel(run: Measured) -> Tensor:
    assert run.folder is not None
    digits = PICTURE_EXPERIMENTS["multi-mnist"].data
    data = evaluation_set(digits, images=SHOWN, seed=0, counts=NEW)
    image = load_pictures(data, "test").batch(torch.arange(SHOWN))
    if run.name == "draw":
        return images_panel(image, load_rival(run.folder).model.reconstruct(image))
    return windows_panel(image, load_checkpoint2d(run.folder).model.infer(image))
