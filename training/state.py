"""The state of a training run on disk: enough to go on as if nothing had happened.

One safetensors file, replaced in one step, so that a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from inference.checkpoint import write_atomically

_META = "run"


class StateError(ValueError):
    """A training state that cannot be resumed; the message says why and what to do."""


def save_state(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, meta: dict[str, Any]
) -> None:
    """Writes the network, the optimizer and `meta` (plain data)."""
    tensors: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"optimizer.{index}.{key}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.torch.save(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        metadata={_META: json.dumps(meta)},
    )
    write_atomically(path, content)


def read_meta(path: Path) -> dict[str, Any]:
    """The plain data of a state.

    Raises:
        StateError: the file is not a training state.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[_META])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise StateError(
            f"{path}: is not a training state ({error}); remove it to start anew"
        ) from None
    if not isinstance(meta, dict):
        raise StateError(f"{path}: is not a training state; remove it to start anew")
    return meta


def load_state(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts the network and the optimizer back to where they were."""
    tensors = safetensors.torch.load_file(path)
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
