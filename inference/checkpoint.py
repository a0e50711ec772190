"""The checkpoint folder: everything that is needed to infer scenes, and nothing that can run code.

model.safetensors   the weights
config.json         format, network, how it was trained, hash of the weights
scene/              the SceneSpec with its meshes
evaluation.json     what was measured on it, when it was
README.md           the model card, when there is one
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from inference.build import AnyPosterior, NetworkConfig, build_posterior
from renderer.spec import SceneSpec, SpecError

FORMAT_VERSION = 1
WEIGHTS, CONFIG, EVALUATION, SCENE = "model.safetensors", "config.json", "evaluation.json", "scene"
CARD = "README.md"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong and what to do."""


class CheckpointConfig(BaseModel):
    """What config.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    version: str
    code_version: str
    sha256: str  # of model.safetensors
    # The SceneSpec's file, in scene/ and nowhere else.
    scene: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+\.yaml$")]
    network: NetworkConfig
    training: dict[str, Any] = {}
    quality: dict[str, float] | None = None  # thresholds for "does this picture fit the model"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the network, ready to infer, and where it came from."""

    folder: Path
    config: CheckpointConfig
    spec: SceneSpec
    posterior: AnyPosterior
    evaluation: dict[str, Any] | None
    card: str | None  # Markdown: what it sees, how it was trained, where it fails

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.config.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.config.version

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        return self.config.sha256


def save_checkpoint(
    folder: str | Path,
    posterior: AnyPosterior,
    *,
    name: str,
    version: str = "1",
    training: dict[str, Any] | None = None,
    quality: dict[str, float] | None = None,
) -> None:
    """Writes a checkpoint; a reader never sees half of a file.

    A kill between two files leaves the new weights with the old config.json, whose hash they do
    not have: loading refuses such a folder.

    Args:
        folder: where; made when missing, files of an earlier checkpoint are replaced.
        posterior: the network, with the SceneSpec that it was made for.
        name: of the model.
        version: of the model.
        training: how it was trained, as plain data.
        quality: thresholds measured on held-out scenes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scene = posterior.spec.save(folder / SCENE)
    weights = safetensors.torch.save(
        {key: value.detach().cpu().contiguous() for key, value in posterior.state_dict().items()}
    )
    config = CheckpointConfig(
        format_version=FORMAT_VERSION,
        name=name,
        version=version,
        code_version=code_version(),
        sha256=hashlib.sha256(weights).hexdigest(),
        scene=scene.name,
        network=posterior.config,
        training=training or {},
        quality=quality,
    )
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, config.model_dump_json(indent=2).encode() + b"\n")


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads a checkpoint, checking everything that can be wrong with it.

    Raises:
        CheckpointError: what is wrong, with which file, and what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; give a checkpoint folder, or train one with "
            "`python -m training train tabletop --out DIR`"
        )
    config = _read_config(folder / CONFIG)
    weights = _read(folder / WEIGHTS)
    found = hashlib.sha256(weights).hexdigest()
    if found != config.sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS}: its hash {found[:12]} is not the {config.sha256[:12]} that "
            f"{CONFIG} names; the file is truncated or was changed, copy the folder again"
        )
    try:
        spec = SceneSpec.load(folder / SCENE / config.scene)
    except SpecError as error:
        raise CheckpointError(
            f"{folder / SCENE}: cannot be read, copy the folder again; {error}"
        ) from None
    posterior = build_posterior(spec, config.network)
    try:
        tensors = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: is not a safetensors file ({error}); copy the folder again"
        ) from None
    difference = _difference(tensors, posterior.state_dict())
    if difference:
        raise CheckpointError(
            f"{folder / WEIGHTS}: does not hold the network that {CONFIG} describes: "
            f"{difference}; copy both files from one checkpoint"
        )
    posterior.load_state_dict(tensors, strict=True)
    return Checkpoint(
        folder, config, spec, posterior.eval(), _read_evaluation(folder), _read_card(folder)
    )


def code_version() -> str:
    """Version of the installed airscene."""
    try:
        return metadata.version("airscene")
    except metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return "unknown"


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file by new content in one step, surviving a kill or a power cut midway."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """The first tensor that differs in name or shape, in words; nothing when none does."""
    for key in sorted(found.keys() | expected.keys()):
        if key not in expected:
            return f"no part of it is named {key!r}"
        if key not in found:
            return f"{key!r} is missing"
        if found[key].shape != expected[key].shape:
            return f"{key!r} has shape {[*found[key].shape]}, expected {[*expected[key].shape]}"
    return ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give a whole checkpoint folder, with "
            f"{WEIGHTS}, {CONFIG} and {SCENE}/"
        ) from None


def _read_config(path: Path) -> CheckpointConfig:
    try:
        data = json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); copy the folder again") from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, this code reads {FORMAT_VERSION}; "
            "train the model again or use the airscene that wrote it "
            f"({data.get('code_version', 'unknown') if isinstance(data, dict) else 'unknown'})"
        )
    try:
        return CheckpointConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"]
        if place[0] == "network":  # then comes the kind of network, which is no key of the file
            place = place[:1] + place[2:]
        key = ".".join(str(part) for part in place)
        raise CheckpointError(
            f"{path}: {key}: {first['msg']}; correct it, or copy the folder again"
        ) from None


def _read_evaluation(folder: Path) -> dict[str, Any] | None:
    path = folder / EVALUATION
    if not path.exists():
        return None
    try:
        data = json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(
            f"{path}: is not JSON ({error}); delete it or run `python -m training evaluate` again"
        ) from None
    return data if isinstance(data, dict) else None


def _read_card(folder: Path) -> str | None:
    path = folder / CARD
    return _read(path).decode(errors="replace") if path.exists() else None
