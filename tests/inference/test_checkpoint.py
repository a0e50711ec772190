import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Generator, Tensor

import inference
from inference.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_atomically
from inference.posterior import Posterior

Tiny = Callable[..., Posterior]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A good checkpoint of a small network for the built-in shapes."""
    folder = tmp_path / "model"
    save_checkpoint(
        folder,
        tiny("objects"),
        name="objects",
        version="7",
        training={"steps": 12},
        quality={"error": 0.5},
    )
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Changes keys of config.json; a key set to `...` is deleted."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def put_weights(folder: Path, content: bytes) -> None:
    """Replaces the weights by ones whose hash is right."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, sha256=hashlib.sha256(content).hexdigest())


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    return str(error.value)


def estimate_tensors(posterior: Posterior) -> list[Tensor]:
    image = torch.rand(4, 3, 64, 64, generator=Generator().manual_seed(2))
    estimate = posterior.infer(image)
    values = [getattr(estimate, field.name) for field in fields(estimate)]
    return [*estimate.scene.tensors(), *(v for v in values if isinstance(v, Tensor))]


@pytest.mark.parametrize("name", ["objects", "tabletop"])
def test_round_trip_is_exact(name: str, tiny: Tiny, tmp_path: Path) -> None:
    posterior = tiny(name)
    save_checkpoint(
        tmp_path / "a" / "b",
        posterior,
        name="mine",
        version="7",
        training={"steps": 12, "nested": {"losses": [1.5, 2.0]}},
        quality={"error": 0.5},
    )
    # Nothing outside of the folder is needed.
    folder = (tmp_path / "a" / "b").rename(tmp_path / "moved")
    checkpoint = load_checkpoint(folder)

    expected, found = posterior.state_dict(), checkpoint.posterior.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]) and value.dtype == found[key].dtype
    for before, after in zip(
        estimate_tensors(posterior), estimate_tensors(checkpoint.posterior), strict=True
    ):
        assert torch.equal(before, after)
    assert not checkpoint.posterior.training
    assert checkpoint.posterior.config == posterior.config
    assert checkpoint.spec.class_names == posterior.spec.class_names
    assert checkpoint.spec.folder == folder / "scene"
    assert (checkpoint.name, checkpoint.version) == ("mine", "7")
    assert checkpoint.config.training == {"steps": 12, "nested": {"losses": [1.5, 2.0]}}
    assert checkpoint.config.quality == {"error": 0.5}
    weights = (folder / "model.safetensors").read_bytes()
    assert checkpoint.sha256 == hashlib.sha256(weights).hexdigest()
    assert checkpoint.evaluation is None


def test_public_names() -> None:
    for name in inference.__all__:
        assert getattr(inference, name) is not None


def test_evaluation_is_read_beside_it(folder: Path) -> None:
    (folder / "evaluation.json").write_text('{"scenes": 100}')
    assert load_checkpoint(folder).evaluation == {"scenes": 100}
    (folder / "evaluation.json").write_text('{"scenes": ')
    message = refusal(folder)
    assert "evaluation.json" in message and "training evaluate" in message


def test_a_network_of_no_kind_is_one_of_cells(folder: Path, tiny: Tiny) -> None:
    """As checkpoints were written when there was no other."""
    network = tiny("objects").config.model_dump()
    assert network.pop("kind") == "cells"
    edit(folder, network=network)
    assert load_checkpoint(folder).posterior.config == tiny("objects").config


def test_saving_again_replaces_it(folder: Path, tiny: Tiny) -> None:
    other = tiny("objects", seed=1)
    save_checkpoint(folder, other, name="objects", version="8")
    checkpoint = load_checkpoint(folder)
    assert checkpoint.version == "8"
    for before, after in zip(
        estimate_tensors(other), estimate_tensors(checkpoint.posterior), strict=True
    ):
        assert torch.equal(before, after)


# --- what cannot be loaded, and what the message says ---


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "nowhere: no such folder" in message
    assert "training train" in message


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "scene/objects.yaml"])
def test_missing_file_is_refused(file: str, folder: Path) -> None:
    (folder / file).unlink()
    message = refusal(folder)
    assert str(folder / file) in message
    assert "No such file" in message or "no such file" in message
    assert "folder" in message


def test_missing_mesh_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny("tabletop"), name="tabletop")
    (tmp_path / "scene" / "meshes" / "cup.obj").unlink()
    message = refusal(tmp_path)
    assert "cup.obj" in message and "objects[0]" in message and "copy the folder" in message


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated_weights_are_refused(keep: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(folder)
    assert str(path) in message and "truncated" in message and "copy the folder" in message


def test_weights_with_another_byte_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    message = refusal(folder)
    assert str(path) in message and "hash" in message and "copy the folder" in message


@pytest.mark.parametrize("version", [0, 2, "1", None, ...])
def test_other_format_version_is_refused(version: Any, folder: Path) -> None:
    edit(folder, format_version=version, code_version="9.9")
    message = refusal(folder)
    assert "config.json: has format version" in message
    assert "train the model again" in message and "9.9" in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"not json"])
def test_config_that_is_not_json_is_refused(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    message = refusal(folder)
    assert "config.json: is not JSON" in message and "copy the folder" in message


@pytest.mark.parametrize("content", ["[]", "3", '"format_version"', "null"])
def test_config_that_is_no_mapping_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json: has format version None" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"extra": 1}, "extra"),
        ({"name": ...}, "name"),
        ({"network": {"chanels": 16}}, "network.chanels"),
        ({"network": {"height": 100}}, "network.height"),
        ({"network": {"kind": "plain", "keys": 16}}, "network.keys"),
        ({"network": {"kind": "plane"}}, "network"),
        ({"network": {"kind": ["plain"]}}, "network"),
        ({"network": "plain"}, "network"),
        ({"quality": {"error": "high"}}, "quality.error"),
    ],
)
def test_wrong_key_in_config_is_refused(changes: dict[str, Any], key: str, folder: Path) -> None:
    edit(folder, **changes)
    message = refusal(folder)
    assert f"config.json: {key}: " in message and "copy the folder" in message


@pytest.mark.parametrize("scene", ["../objects.yaml", "/objects.yaml", "objects", ""])
def test_scene_outside_of_its_folder_is_refused(scene: str, folder: Path) -> None:
    shutil.copy(folder / "scene" / "objects.yaml", folder)
    edit(folder, scene=scene)
    assert "config.json: scene: " in refusal(folder)


def test_weights_of_another_network_are_refused(folder: Path, tiny: Tiny) -> None:
    other = {key: value.clone() for key, value in tiny("objects").state_dict().items()}
    other["cell.query.bias"] = torch.zeros(17)
    put_weights(folder, safetensors.torch.save(other))
    message = refusal(folder)
    assert "'cell.query.bias' has shape [17], expected [16]" in message
    assert "model.safetensors" in message and "copy both" in message

    edit(folder, network=tiny("objects").config.model_dump() | {"blocks": 2})
    del other["cell.query.bias"]
    put_weights(folder, safetensors.torch.save(other))
    assert "'cell.query.bias' is missing" in refusal(folder)


def test_foreign_safetensors_file_is_refused(folder: Path) -> None:
    put_weights(folder, safetensors.torch.save({"a": torch.zeros(3)}))
    message = refusal(folder)
    assert "model.safetensors" in message and "no part of it is named 'a'" in message


class Bomb:
    """What, unpickled, creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("wrapped", [False, True])
def test_pickle_in_place_of_the_weights_is_refused_unopened(
    wrapped: bool, folder: Path, tmp_path: Path
) -> None:
    target, file = tmp_path / "created", tmp_path / "bomb"
    if wrapped:
        torch.save({"weights": Bomb(target)}, file)
        torch.load(file, weights_only=False)
    else:
        file.write_bytes(pickle.dumps(Bomb(target)))
        pickle.loads(file.read_bytes())
    assert target.exists()  # a live one
    target.unlink()

    put_weights(folder, file.read_bytes())
    message = refusal(folder)
    assert "model.safetensors: is not a safetensors file" in message
    assert "copy the folder" in message
    (folder / "model.safetensors").unlink()
    file.rename(folder / "model.pt")
    assert "model.safetensors" in refusal(folder)
    assert not target.exists()


# --- a writer that is stopped midway ---


@pytest.mark.parametrize("stopped", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("place", "name"), [(os, "fsync"), (Path, "replace")])
def test_interrupted_write_leaves_the_old_file_alone(
    place: Any, name: str, stopped: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    write_atomically(path, b"old")

    def stop(*_: object) -> None:
        raise stopped

    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        with pytest.raises(type(stopped)):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["weights"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_interrupted_save_never_gives_a_mixture(
    folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "model.safetensors").read_bytes()
    calls = 0
    replace = Path.replace

    def fail_at_second(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("disk full")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_at_second)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(folder, tiny("objects", seed=1), name="objects")
    # New weights under the old config: seen on loading.
    assert (folder / "model.safetensors").read_bytes() != before
    assert "hash" in refusal(folder)
    save_checkpoint(folder, tiny("objects", seed=1), name="objects")
    load_checkpoint(folder)
