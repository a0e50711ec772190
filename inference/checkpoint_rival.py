"""The checkpoint of a rival: the files of `inference.folder`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from inference.folder import (
    CheckpointError,
    FolderConfig,
    Loaded,
    check_folder,
    network_kind,
    put_weights,
    read_config,
    read_weights,
    write_folder,
)
from inference.rivals import RIVALS, AnyRival, AnyRivalConfig, build_rival


class RivalCheckpointConfig(FolderConfig):
    """What config.json holds."""

    network: AnyRivalConfig

    tags: ClassVar[frozenset[str]] = RIVALS


@dataclass(frozen=True)
class RivalCheckpoint(Loaded[RivalCheckpointConfig]):
    """A loaded checkpoint: the model, ready to explain images, and where it came from."""

    model: AnyRival


def save_rival(
    folder: str | Path,
    model: AnyRival,
    *,
    name: str,
    version: str = "1",
    training: dict[str, Any] | None = None,
) -> None:
    """Writes a checkpoint; the arguments are those of `save_checkpoint`."""

    def describe(common: dict[str, Any]) -> RivalCheckpointConfig:
        return RivalCheckpointConfig(**common, network=model.config)

    write_folder(Path(folder), model, describe, name=name, version=version, training=training)


def load_rival(folder: str | Path) -> RivalCheckpoint:
    """Reads a checkpoint, checking everything that can be wrong with it.

    Raises:
        CheckpointError: what is wrong, with which file, and what to do.
    """
    folder = Path(folder)
    if not holds_rival(folder):
        raise CheckpointError(
            f"{folder}: holds none of the models that AIR is held against; give a folder that "
            "`python -m training train draw --out DIR` wrote"
        )
    config = read_config(folder, RivalCheckpointConfig)
    model = build_rival(config.network)
    put_weights(folder, model, read_weights(folder, config.sha256))
    return RivalCheckpoint(folder, config, model.eval())


def holds_rival(folder: str | Path) -> bool:
    """Whether a folder holds a model of whole images, which knows no objects.

    Raises:
        CheckpointError: it holds no checkpoint at all.
    """
    path = Path(folder)
    check_folder(path)
    return network_kind(path) in RIVALS
