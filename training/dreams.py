"""The scenes of the sleep phase: drawn from the prior, photographed, batch by batch.

Batch i depends on the seed and on i alone, so training that was stopped anywhere goes on with
exactly the batches that it would have seen, whatever the number of worker processes. On a card
pictures are drawn where the network is, in its process, and never pass through the host.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from renderer.backend import Renderer, open_renderer
from renderer.nuisance import photograph
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec


class Dream(NamedTuple):
    """A batch of scenes and their pictures."""

    pictures: Tensor  # [B, H, W, 3] uint8, on the device that drew them
    scene: tuple[Tensor, ...]  # the tensors of a Scene: processes hand on plain tuples


def generator_for(*key: int | str) -> torch.Generator:
    """A generator of random numbers that depends on `key` alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Batches(Dataset[Dream]):
    """Batches by number: drawn when they are asked for, or before."""

    device: str  # where the pictures are


class Dreams(Batches):
    """Batches of scenes by number.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        supersample: samples a pixel along each axis.
        backend: of the renderer, by name: `auto` is not always the same.
        batch: scenes a batch.
        seed: of everything random.
        kind: what they are drawn for: of each, batch i is another.
        own: what else tells these scenes from those of other processes with the same seed.
        device: that draws, `cpu` or `cuda`; on the latter without worker processes.

    Raises:
        ValueError: the backend is `auto`.
    """

    def __init__(
        self,
        spec: SceneSpec,
        *,
        height: int,
        width: int,
        supersample: int,
        backend: str,
        batch: int,
        seed: int,
        kind: str = "dream",
        own: tuple[int, ...] = (),
        device: str = "cpu",
    ) -> None:
        if backend == "auto":
            raise ValueError("batches depend on the backend: name one, or ask choose_backend once")
        self.spec, self.batch = spec, batch
        self.seed, self.kind, self.own = seed, kind, own
        self.size, self.supersample, self.backend = (height, width), supersample, backend
        self.device = device
        self._renderer: Renderer | None = None

    def __getitem__(self, index: int) -> Dream:
        """Batch number `index`."""
        if self._renderer is None:  # in the process that draws: a renderer cannot be handed on
            self._renderer = open_renderer(
                self.spec,
                height=self.size[0],
                width=self.size[1],
                backend=self.backend,
                supersample=self.supersample,
                device=self.device,
            )
        generator = generator_for(self.seed, self.kind, index, *self.own)
        scene = sample(self.spec, self.batch, generator=generator).to(self.device)
        pictures = photograph(self._renderer, scene, generator=generator)
        return Dream(pictures, tuple(scene.tensors()))


def stream(
    dreams: Batches, start: int, stop: int, *, workers: int
) -> Iterator[tuple[Tensor, Scene]]:
    """Pictures `[B, H, W, 3]` uint8 and scenes of batches `start` to `stop` - 1, in order.

    Args:
        dreams: the batches.
        start: first number.
        stop: one past the last number.
        workers: processes that draw ahead; 0 draws here.

    Raises:
        ValueError: worker processes are asked to draw on a card.
    """
    if workers and dreams.device != "cpu":
        raise ValueError(f"pictures on {dreams.device} are drawn in this process; use 0 workers")
    loader: DataLoader[Dream] = DataLoader(
        dreams,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_prepare_worker if workers else None,
    )
    for pictures, scene in loader:
        yield pictures, Scene(*scene)


def _prepare_worker(worker: int) -> None:
    # Its parent finishes its step first, and then tells it to leave.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
