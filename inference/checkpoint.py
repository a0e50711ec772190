"""The checkpoint of a model of scenes: everything that is needed to infer them.

The files of any checkpoint folder (see `inference.folder`), and in scene/ the SceneSpec with its
meshes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from inference.build import AnyPosterior, NetworkConfig, build_posterior
from inference.calibrate import Calibration, grain_of
from inference.estimate import Estimate
from inference.folder import (
    CONFIG,
    EVALUATION,
    GRAPH,
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
from inference.graph import Graph, GraphError, SinglePass, difference, fingerprint, graph_of
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
    "add_graph",
    "code_version",
    "load_checkpoint",
    "recalibrate",
    "save_checkpoint",
    "write_atomically",
]


PICTURES = 4  # on which a graph is compared with its network
TOLERANCE = 1e-3  # of all its numbers: m, rad and probabilities


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
    graph: Graph | None = None  # of the single pass, which runs on a CPU instead when there is one

    @property
    def single_pass(self) -> SinglePass:
        """The network and its calibration."""
        return SinglePass(self.posterior, self.config.calibration)

    @property
    def made_for(self) -> str:
        """What a graph of the single pass has to be made for."""
        return fingerprint(self.sha256, self.config.calibration)

    @property
    def supersample(self) -> int:
        """Samples a pixel, along each axis, of the pictures that it has learned from."""
        return int(self.config.training.get("experiment", {}).get("supersample", 2))

    def infer(self, image: Tensor) -> Estimate:
        """The most probable scene of each picture, and how sure each part of it is, calibrated.

        Args:
            image: `[B, 3, H, W]` in [0, 1].
        """
        if self.graph is not None and image.device.type == "cpu":
            return self.graph.infer(image)
        return self.single_pass(image, grain_of(image))

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

    A graph, which is of what was there before, goes.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    folder = Path(folder)
    config = load_checkpoint(folder).config
    changes = {"calibration": calibration, "novelty": novelty}
    (folder / GRAPH).unlink(missing_ok=True)
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
    found = Checkpoint(
        folder, config, spec, posterior.eval(), read_evaluation(folder), read_card(folder)
    )
    return replace(found, graph=_read_graph(found))


def add_graph(folder: str | Path) -> None:
    """Draws up the graph of a checkpoint and writes it into its folder (see `inference.graph`).

    Raises:
        CheckpointError: there is no usable checkpoint.
        GraphError: there is no graph that gives the same answers.
    """
    folder = Path(folder)
    (folder / GRAPH).unlink(missing_ok=True)
    found = load_checkpoint(folder)
    model = graph_of(found.single_pass, found.made_for)
    size = found.posterior.config
    image = torch.rand(PICTURES, 3, size.height, size.width)
    off = difference(Graph(model, found.single_pass).infer(image), found.infer(image))
    if not off <= TOLERANCE:  # NaN neither
        raise GraphError(f"{folder}: the graph's answers are off by {off:.2g}; none was written")
    write_atomically(folder / GRAPH, model)


def _read_graph(found: Checkpoint) -> Graph | None:
    path = found.folder / GRAPH
    if not path.exists():
        return None
    mend = f"write it anew by `python -m training graph {found.folder}`, or delete it"
    try:
        graph = Graph(path.read_bytes(), found.single_pass)
    except (GraphError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be used ({error}); {mend}") from None
    if graph.made_for != found.made_for:
        raise CheckpointError(f"{path}: was made for another model; {mend}")
    return graph
