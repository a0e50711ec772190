"""Scenes drawn in advance: a folder of safetensors files that training reads instead of drawing.

    shards.json             of what world, which pictures, how many, from which seed
    shard-00000.safetensors pictures [n, H, W, 3] uint8 and the tensors of their Scene

Shard i depends on seed and number alone, whoever draws it, and is written whole or not at all: what
was stopped goes on, and what several machines draw is what one would have drawn. Drawn by
`shard_drawing`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from inference.folder import write_atomically
from renderer.spec import SceneSpec
from training.dreams import Batches, Dream, Dreams, generator_for

MANIFEST = "shards.json"
FORMAT = 1
PER_SHARD = 1024  # scenes; a multiple of any batch that is a power of two
AT_ONCE = 64  # scenes that are drawn at once
PARTS = ("presence", "identity", "position", "yaw", "azimuth")


class ShardError(ValueError):
    """Shards that cannot be used; the message says which, and what to do."""


class Manifest(BaseModel):
    """What shards.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT
    world: str  # name of the SceneSpec
    digest: str  # of the SceneSpec and all of its files
    height: int = Field(ge=1)  # px
    width: int = Field(ge=1)
    supersample: int = Field(ge=1)
    backend: str
    seed: int
    scenes: int = Field(ge=1)
    per_shard: int = Field(ge=1)

    @property
    def shards(self) -> int:
        """How many files; the last one may hold fewer scenes."""
        return -(-self.scenes // self.per_shard)

    @property
    def bytes(self) -> int:
        """Of all pictures."""
        return self.scenes * self.height * self.width * 3

    def size_of(self, index: int) -> int:
        """Scenes in shard `index`."""
        return min(self.per_shard, self.scenes - index * self.per_shard)

    @property
    def sha256(self) -> str:
        """Tells one set of shards from another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def digest_of(spec: SceneSpec) -> str:
    """Hash of a world: of its YAML, as it is saved, and of every mesh and texture."""
    found = hashlib.sha256()
    for name, content in files_of(spec).items():
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def files_of(spec: SceneSpec) -> dict[str, bytes]:
    """All files that a world consists of, by their paths in its folder."""
    with TemporaryDirectory() as folder:
        spec.save(Path(folder))
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` lies."""
    return folder / f"shard-{index:05d}.safetensors"


def draw_shard(spec: SceneSpec, manifest: Manifest, index: int) -> bytes:
    """The content of shard `index`."""
    dreams, per_shard = _dreams(spec, manifest), -(-manifest.per_shard // AT_ONCE)
    size = manifest.size_of(index)
    some = [dreams[index * per_shard + part] for part in range(-(-size // AT_ONCE))]
    tensors = {"pictures": torch.cat([one.pictures for one in some])}
    for name, *parts in zip(PARTS, *(one.scene for one in some), strict=True):
        tensors[name] = torch.cat(parts)
    return safetensors.torch.save(
        {name: value[:size].contiguous() for name, value in tensors.items()},
        metadata={"shards": manifest.sha256},  # one entry: of several the order is not told
    )


@lru_cache(maxsize=1)
def _dreams(spec: SceneSpec, manifest: Manifest) -> Dreams:
    """What draws; opened once in each process."""
    return Dreams(
        spec,
        height=manifest.height,
        width=manifest.width,
        supersample=manifest.supersample,
        backend=manifest.backend,
        batch=AT_ONCE,
        seed=manifest.seed,
        kind="shard",
    )


def missing(folder: Path, manifest: Manifest) -> Iterator[int]:
    """Numbers of the shards that are not there yet, or are of another set."""
    for index in range(manifest.shards):
        try:
            with safetensors.safe_open(shard_path(folder, index), framework="pt") as file:
                found = (file.metadata() or {}).get("shards")
        except (OSError, safetensors.SafetensorError):
            found = None
        if found != manifest.sha256:
            yield index


def begin(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, unless there is one already.

    Raises:
        ShardError: the folder holds other shards.
    """
    file = folder / MANIFEST
    if file.exists():
        known = read_manifest(folder)
        differing = [
            name for name, value in manifest.model_dump().items() if getattr(known, name) != value
        ]
        if differing:
            raise ShardError(
                f"{folder}: holds shards with another {', '.join(differing)}; give another --out, "
                "or remove that folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, manifest.model_dump_json(indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """What a folder of shards says of itself.

    Raises:
        ShardError: it is none.
    """
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(data)
    except (OSError, ValueError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ShardError(
            f"{folder}: is no folder of shards ({MANIFEST}: {reason}); make one by "
            "`python -m training shards SPEC --out DIR`"
        ) from None
    if manifest.format_version != FORMAT:
        raise ShardError(
            f"{folder}: has format {manifest.format_version}, this code reads {FORMAT}; draw the "
            "shards again"
        )
    return manifest


class _Place(NamedTuple):
    """Where a batch lies."""

    shard: int
    first: int  # scene in it


@dataclass
class Shards(Batches):
    """Batches of scenes that were drawn in advance, by number; in place of `Dreams`.

    Once all were seen they come again, in another order. Processes of a team read their share of
    each batch: together they see what one process would.

    Args:
        folder: of shards.
        batch: scenes a batch, of all processes together.
        seed: of the order.
        rank: number of this process.
        size: of the team.

    Raises:
        ShardError: shards are missing, or hold less than a batch.
    """

    folder: Path
    batch: int
    seed: int
    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.manifest = read_manifest(self.folder)
        gone = list(missing(self.folder, self.manifest))
        if gone:
            raise ShardError(
                f"{self.folder}: {len(gone)} of {self.manifest.shards} shards are missing or "
                f"damaged, the first is {shard_path(self.folder, gone[0]).name}; start the same "
                "`python -m training shards` again"
            )
        self._places = [
            _Place(shard, first)
            for shard in range(self.manifest.shards)
            for first in range(0, self.manifest.size_of(shard) - self.batch + 1, self.batch)
        ]
        if not self._places:
            raise ShardError(
                f"{self.folder}: no shard holds a batch of {self.batch} scenes; draw more, or more "
                "to a shard"
            )

    def __len__(self) -> int:
        """Batches until the first comes again."""
        return len(self._places)

    def __getitem__(self, index: int) -> Dream:
        """Batch number `index`, or this process's share of it."""
        epoch, number = divmod(index, len(self._places))
        generator = generator_for(self.seed, "shards", epoch)
        order = torch.randperm(len(self._places), generator=generator)
        place = self._places[int(order[number])]
        share = self.batch // self.size
        first = place.first + share * self.rank
        with safetensors.safe_open(shard_path(self.folder, place.shard), framework="pt") as file:

            def read(name: str) -> Tensor:
                return file.get_slice(name)[first : first + share]

            return Dream(read("pictures"), tuple(read(name) for name in PARTS))

    def check(self, spec: SceneSpec, height: int, width: int, supersample: int) -> None:
        """Whether they show a world as a network is to see it.

        Raises:
            ShardError: they show another.
        """
        manifest = self.manifest
        if manifest.digest != digest_of(spec):
            raise ShardError(
                f"{self.folder}: shows another world than {spec.name}: the SceneSpec "
                f"{manifest.world!r} or one of its files was different when they were drawn; draw "
                "them again, or train with the SceneSpec of then"
            )
        theirs = (manifest.height, manifest.width, manifest.supersample)
        if theirs != (height, width, supersample):
            raise ShardError(
                f"{self.folder}: pictures have {theirs[1]} x {theirs[0]} px and {theirs[2]} "
                f"samples a pixel along each axis, the network wants {width} x {height} px and "
                f"{supersample}; draw them again"
            )
