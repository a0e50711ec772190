"""Entry point of `python -m training`: which commands there are, what becomes of errors."""

from __future__ import annotations

import sys

import tyro

from renderer.backend import BackendError
from training.commands.learning import train
from training.commands.measuring import (
    accuracy,
    calibrate,
    descend,
    evaluate,
    figures,
    graph,
    represent,
)
from training.commands.worlds import new, preview, render, shards
from training.team import TeamError


def main() -> None:
    """Entry point: errors that a user can mend are one line, not a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": train,
                "evaluate": evaluate,
                "calibrate": calibrate,
                "accuracy": accuracy,
                "graph": graph,
                "figures": figures,
                "new": new,
                "preview": preview,
                "render": render,
                "shards": shards,
                "descend": descend,
                "represent": represent,
            },
            prog="python -m training",
        )
    except (ValueError, OSError, BackendError, FloatingPointError, TeamError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
