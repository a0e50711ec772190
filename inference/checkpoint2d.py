"""The checkpoint of a model of 2D images: the files of `inference.folder`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.air2d import Air2d, Air2dConfig
from inference.checkpoint import Checkpoint, load_checkpoint
from inference.folder import (
    CheckpointError,
    FolderConfig,
    Loaded,
    check_folder,
    network_kind,
    put_weights,
    read_card,
    read_config,
    read_evaluation,
    read_weights,
    write_folder,
)


class Checkpoint2dConfig(FolderConfig):
    """What config.json holds."""

    network: Air2dConfig


@dataclass(frozen=True)
class Checkpoint2d(Loaded[Checkpoint2dConfig]):
    """A loaded checkpoint: the model, ready to infer, and where it came from."""

    model: Air2d
    evaluation: dict[str, Any] | None
    card: str | None  # Markdown: what it sees, how it was trained, where it fails


def save_checkpoint2d(
    folder: str | Path,
    model: Air2d,
    *,
    name: str,
    version: str = "1",
    training: dict[str, Any] | None = None,
) -> None:
    """Writes a checkpoint; the arguments are those of `save_checkpoint`."""

    def describe(common: dict[str, Any]) -> Checkpoint2dConfig:
        return Checkpoint2dConfig(**common, network=model.config)

    write_folder(Path(folder), model, describe, name=name, version=version, training=training)


def load_checkpoint2d(folder: str | Path) -> Checkpoint2d:
    """Reads a checkpoint, checking everything that can be wrong with it.

    Raises:
        CheckpointError: what is wrong, with which file, and what to do.
    """
    folder = Path(folder)
    check_folder(folder)
    if network_kind(folder) != "glimpses":
        raise CheckpointError(
            f"{folder}: does not hold a model of 2D images; give a folder that "
            "`python -m training train multi-mnist --out DIR` wrote"
        )
    config = read_config(folder, Checkpoint2dConfig)
    model = Air2d(config.network)
    put_weights(folder, model, read_weights(folder, config.sha256))
    return Checkpoint2d(folder, config, model.eval(), read_evaluation(folder), read_card(folder))


def open_checkpoint(folder: str | Path) -> Checkpoint | Checkpoint2d:
    """Reads a checkpoint of either kind.

    Raises:
        CheckpointError: what is wrong, with which file, and what to do.
    """
    if holds_glimpses(folder):
        return load_checkpoint2d(folder)
    return load_checkpoint(folder)


def holds_glimpses(folder: str | Path) -> bool:
    """Whether a folder holds a model of 2D images, and not one of scenes.

    Raises:
        CheckpointError: it holds no checkpoint at all.
    """
    path = Path(folder)
    check_folder(path)
    return network_kind(path) == "glimpses"
