"""The files of a checkpoint folder, whatever model it holds; nothing in them can run code.

model.safetensors   the weights
config.json         format, network, how it was trained, hash of the weights
evaluation.json     what was measured on it, when it was
README.md           the model card, when there is one
network.onnx        the network's operations as a graph (see `inference.graph`), when there is one
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

FORMAT_VERSION = 1
WEIGHTS, CONFIG, EVALUATION, SCENE = "model.safetensors", "config.json", "evaluation.json", "scene"
CARD = "README.md"
GRAPH = "network.onnx"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong and what to do."""


class FolderConfig(BaseModel):
    """What every config.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    version: str
    code_version: str
    sha256: str  # of model.safetensors
    training: dict[str, Any] = {}

    # Tags that tell networks apart: pydantic names them in the place of an error, the file does
    # not.
    tags: ClassVar[frozenset[str]] = frozenset()


ConfigT = TypeVar("ConfigT", bound=FolderConfig)


@dataclass(frozen=True)
class Loaded(Generic[ConfigT]):
    """What every loaded checkpoint says of itself."""

    folder: Path
    config: ConfigT

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


def write_folder(
    folder: Path,
    network: nn.Module,
    describe: Callable[[dict[str, Any]], FolderConfig],
    *,
    name: str,
    version: str,
    training: dict[str, Any] | None,
) -> None:
    """Writes weights and config.json; a reader never sees half of a file.

    A kill between two files leaves the new weights with the old config.json, whose hash they do
    not have: loading refuses such a folder. A graph, which is of other weights, goes first.

    Args:
        folder: where; made when missing, files of an earlier checkpoint are replaced.
        network: whose weights are written.
        describe: makes the configuration from what every one holds.
        name: of the model.
        version: of the model.
        training: how it was trained, as plain data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = safetensors.torch.save(
        {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    )
    config = describe(
        {
            "format_version": FORMAT_VERSION,
            "name": name,
            "version": version,
            "code_version": code_version(),
            "sha256": hashlib.sha256(weights).hexdigest(),
            "training": training or {},
        }
    )
    (folder / GRAPH).unlink(missing_ok=True)
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, config.model_dump_json(indent=2).encode() + b"\n")


def check_folder(folder: Path) -> None:
    """Refuses what is no folder.

    Raises:
        CheckpointError: there is none.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; give a checkpoint folder, or train one with "
            "`python -m training train tabletop --out DIR`"
        )


def network_kind(folder: Path) -> str | None:
    """Which kind of network a folder says that it holds, if it says so.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    data = _read_json(folder / CONFIG)
    network = data.get("network") if isinstance(data, dict) else None
    kind = network.get("kind") if isinstance(network, dict) else None
    return kind if isinstance(kind, str) else None


def read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    """The weights that config.json describes.

    Raises:
        CheckpointError: they are missing, or others.
    """
    weights = _read(folder / WEIGHTS)
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS}: its hash {found[:12]} is not the {sha256[:12]} that "
            f"{CONFIG} names; the file is truncated or was changed, copy the folder again"
        )
    try:
        return safetensors.torch.load(weights)
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: is not a safetensors file ({error}); copy the folder again"
        ) from None


def put_weights(folder: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Gives a network the weights of a folder, all of them and no others.

    Raises:
        CheckpointError: they are another network's.
    """
    difference = _difference(tensors, network.state_dict())
    if difference:
        raise CheckpointError(
            f"{folder / WEIGHTS}: does not hold the network that {CONFIG} describes: "
            f"{difference}; copy both files from one checkpoint"
        )
    network.load_state_dict(tensors, strict=True)


def read_config(folder: Path, kind: type[ConfigT]) -> ConfigT:
    """What config.json says.

    Raises:
        CheckpointError: it is missing, of another format, or says something impossible.
    """
    path = folder / CONFIG
    data = _read_json(path)
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, this code reads {FORMAT_VERSION}; "
            "train the model again or use the airscene that wrote it "
            f"({data.get('code_version', 'unknown') if isinstance(data, dict) else 'unknown'})"
        )
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"]
        key = ".".join(str(part) for part in place if part not in kind.tags)
        raise CheckpointError(
            f"{path}: {key}: {first['msg']}; correct it, or copy the folder again"
        ) from None


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """What was measured on a model, if it was."""
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


def read_card(folder: Path) -> str | None:
    """The model card, if there is one."""
    path = folder / CARD
    return _read(path).decode(errors="replace") if path.exists() else None


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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); copy the folder again") from None
