"""The latent scene: what stands on the table, where, turned how, seen from which angle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from renderer.spec import SceneSpec


@dataclass(frozen=True)
class Scene:
    """A batch of scenes, `B` of them with `K` object slots each.

    The table frame has its origin at the centre of the table top, z up. Present objects come
    first (the unary code of AIR, section 2.1); what a slot holds behind the last present object
    has no meaning and is ignored by everything that reads a scene.
    """

    presence: Tensor  # [B, K] bool
    identity: Tensor  # [B, K] int64, index into the spec's objects
    position: Tensor  # [B, K, 2] m, in the table plane
    yaw: Tensor  # [B, K] rad, about +z
    azimuth: Tensor  # [B] rad, of the camera about +z; 0 stands at -y looking to +y

    def __post_init__(self) -> None:
        batch, slots = self.presence.shape
        expected = {
            "identity": (batch, slots),
            "position": (batch, slots, 2),
            "yaw": (batch, slots),
            "azimuth": (batch,),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"Scene.{name} has shape {found}, expected {shape}")
        if self.presence.dtype != torch.bool:
            raise TypeError(f"Scene.presence must be bool, not {self.presence.dtype}")

    def __len__(self) -> int:
        return len(self.azimuth)

    def __getitem__(self, index: int | slice | Tensor) -> Scene:
        """The scenes at `index`, still as a batch."""
        if isinstance(index, int):
            # Also what ends `for scene in scenes`.
            if not -len(self) <= index < len(self):
                raise IndexError(f"scene {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        return Scene(*(value[index] for value in self.tensors()))

    @property
    def slots(self) -> int:
        """K, the number of object slots."""
        return self.presence.shape[1]

    @property
    def count(self) -> Tensor:
        """Number of present objects, `[B]` int64."""
        return self.presence.sum(dim=1)

    def tensors(self) -> Iterator[Tensor]:
        """The fields in their order."""
        return (getattr(self, field.name) for field in fields(self))

    def to(self, device: torch.device | str) -> Scene:
        """The same scenes on `device`."""
        return Scene(*(value.to(device) for value in self.tensors()))

    def permute_slots(self, order: Sequence[int] | Tensor) -> Scene:
        """The same scenes with slot `order[k]` at place k, for one order or one per scene.

        Args:
            order: `[K]`, or `[B, K]` int64.
        """
        index = torch.as_tensor(order, device=self.azimuth.device).expand_as(self.identity)
        return Scene(
            self.presence.gather(1, index),
            self.identity.gather(1, index),
            self.position.gather(1, index[..., None].expand_as(self.position)),
            self.yaw.gather(1, index),
            self.azimuth,
        )

    @staticmethod
    def empty(batch: int, slots: int) -> Scene:
        """`batch` scenes with nothing on the table, camera at azimuth 0."""
        return Scene(
            torch.zeros(batch, slots, dtype=torch.bool),
            torch.zeros(batch, slots, dtype=torch.int64),
            torch.zeros(batch, slots, 2),
            torch.zeros(batch, slots),
            torch.zeros(batch),
        )

    @staticmethod
    def cat(scenes: Sequence[Scene]) -> Scene:
        """One batch from several with the same number of slots."""
        columns = zip(*(scene.tensors() for scene in scenes), strict=True)
        return Scene(*(torch.cat(values) for values in columns))

    def records(self, spec: SceneSpec) -> list[dict[str, Any]]:
        """The scenes as plain data for JSON: metres, radians, class names; one dict a scene."""
        return [
            {
                "azimuth": float(self.azimuth[b]),
                "objects": [
                    {
                        "class_id": spec.objects[int(self.identity[b, k])].name,
                        "position": {
                            "x": float(self.position[b, k, 0]),
                            "y": float(self.position[b, k, 1]),
                        },
                        "yaw": float(self.yaw[b, k]),
                    }
                    for k in range(self.slots)
                    if bool(self.presence[b, k])
                ],
            }
            for b in range(len(self))
        ]

    @staticmethod
    def of_records(spec: SceneSpec, records: Sequence[dict[str, Any]]) -> Scene:
        """The scenes that `records` wrote.

        Raises:
            ValueError: one has more objects than the spec, or an object that it does not know.
        """
        scene = Scene.empty(len(records), spec.count.max)
        for row, record in enumerate(records):
            if len(record["objects"]) > spec.count.max:
                raise ValueError(f"{spec.name} has at most {spec.count.max} objects, not {record}")
            scene.azimuth[row] = record["azimuth"]
            for slot, item in enumerate(record["objects"]):
                if item["class_id"] not in spec.class_names:
                    raise ValueError(f"{spec.name} has no object {item['class_id']!r}")
                scene.presence[row, slot] = True
                scene.identity[row, slot] = spec.class_names.index(item["class_id"])
                scene.position[row, slot, 0] = item["position"]["x"]
                scene.position[row, slot, 1] = item["position"]["y"]
                scene.yaw[row, slot] = item["yaw"]
        return scene
