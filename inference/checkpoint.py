"""The checkpoint of a model of scenes: everything that is needed to infer them.

The files of any checkpoint folder (see `inference.folder`), and in scene/ the SceneSpec with its
meshes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from inference.build import AnyPosterior, NetworkConfig, build_posterior
from inference.calibrate import Calibration, grain_of
from inference.estimate import Estimate
from inference.folder import (
    CONFIG,
    EVALUATION,
    SCENE,
    CheckpointError,
    FolderConfig,
    Loaded,
    check_folder,
    code_version,
    network_kind,
    put_weights,
    read_card,
    read_config,
    read_evaluation,
    read_weights,
    write_atomically,
    write_folder,
)
from inference.novelty import Limits
from inference.refine import Refined
from inference.rivals import RIVALS
from renderer.spec import SceneSpec, SpecError

__all__ = [
    "CONFIG",
    "EVALUATION",
    "SCENE",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "code_version",
    "load_checkpoint",
    "recalibrate",
    "save_checkpoint",
    "write_atomically",
]


class CheckpointConfig(FolderConfig):
    """What config.json holds."""

    # The SceneSpec's file, in scene/ and nowhere else.
    scene: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+\.yaml$")]
    network: NetworkConfig
    # What a reconstruction error stays below, of folders that have no `novelty`.
    quality: dict[str, float] | None = None
    calibration: Calibration | None = None  # what was fitted on held-out scenes
    novelty: Limits | None = None  # from where on a picture is unlike those that the model knows

    tags: ClassVar[frozenset[str]] = frozenset({"cells", "plain"})


@dataclass(frozen=True)
class Checkpoint(Loaded[CheckpointConfig]):
    """A loaded checkpoint: the network, ready to infer, and where it came from."""

    spec: SceneSpec
    posterior: AnyPosterior
    evaluation: dict[str, Any] | None
    card: str | None  # Markdown: what it sees, how it was trained, where it fails

    @property
    def supersample(self) -> int:
        """Samples a pixel, along each axis, of the pictures that it has learned from."""
        return int(self.config.training.get("experiment", {}).get("supersample", 2))

    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture, and how sure each part of it is, calibrated.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
        """
        estimate = self.posterior.infer(image)
        calibration = self.config.calibration
        if calibration is None:
            return estimate
        return calibration.of_single(estimate, self.posterior.orders, grain_of(image))

    def settle(self, refined: Refined, image: Tensor) -> Estimate:
        """What became of `infer`'s estimates by refinement, calibrated.

        Args:
            refined: they.
            image: `[B, 3, H, W]` in [0, 1], their pictures.
        """
        calibration = self.config.calibration
        if calibration is None:
            return refined.estimate
        return calibration.of_refined(refined, self.posterior.orders, grain_of(image))


def save_checkpoint(
    folder: str | Path,
    posterior: AnyPosterior,
    *,
    name: str,
    version: str = "1",
    training: dict[str, Any] | None = None,
    quality: dict[str, float] | None = None,
    calibration: Calibration | None = None,
    novelty: Limits | None = None,
) -> None:
    """Writes a checkpoint; a reader never sees half of a file (see `write_folder`).

    Args:
        folder: where; made when missing, files of an earlier checkpoint are replaced.
        posterior: the network, with the SceneSpec that it was made for.
        name: of the model.
        version: of the model.
        training: how it was trained, as plain data.
        quality: thresholds measured on held-out scenes.
        calibration: fitted on held-out scenes.
        novelty: thresholds measured on held-out scenes.
    """
    folder = Path(folder)
    scene = posterior.spec.save(folder / SCENE)

    def describe(common: dict[str, Any]) -> CheckpointConfig:
        return CheckpointConfig(
            **common,
            scene=scene.name,
            network=posterior.config,
            quality=quality,
            calibration=calibration,
            novelty=novelty,
        )

    write_folder(folder, posterior, describe, name=name, version=version, training=training)


def recalibrate(folder: str | Path, calibration: Calibration, novelty: Limits) -> None:
    """Writes what was fitted on held-out scenes into a checkpoint's config.json.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    folder = Path(folder)
    config = load_checkpoint(folder).config
    changes = {"calibration": calibration, "novelty": novelty}
    text = config.model_copy(update=changes).model_dump_json(indent=2)
    write_atomically(folder / CONFIG, text.encode() + b"\n")


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads a checkpoint, checking everything that can be wrong with it.

    Raises:
        CheckpointError: what is wrong, with which file, and what to do.
    """
    folder = Path(folder)
    check_folder(folder)
    kind = network_kind(folder)
    if kind in RIVALS:
        raise CheckpointError(
            f"{folder}: holds a {kind}, which explains whole images and knows no objects; give the "
            "folder of a model that does"
        )
    if kind == "glimpses":
        raise CheckpointError(
            f"{folder}: holds a model of 2D images, which knows no scenes; give the folder of a "
            "model of scenes"
        )
    config = read_config(folder, CheckpointConfig)
    tensors = read_weights(folder, config.sha256)
    try:
        spec = SceneSpec.load(folder / SCENE / config.scene)
    except SpecError as error:
        raise CheckpointError(
            f"{folder / SCENE}: cannot be read, copy the folder again; {error}"
        ) from None
    posterior = build_posterior(spec, config.network)
    put_weights(folder, posterior, tensors)
    return Checkpoint(
        folder, config, spec, posterior.eval(), read_evaluation(folder), read_card(folder)
    )
