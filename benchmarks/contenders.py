"""Who takes part: every backend, alone and on all cores, the ray caster on a card, a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.plain_loop import PlainLoop
from renderer import BackendError, SceneSpec, open_renderer
from renderer.backend import BACKENDS, Format
from renderer.cpus import available_cpus


@dataclass(frozen=True)
class Contender:
    """A way to draw, by a name that means the same on every machine."""

    name: str
    backend: str | None
    """Of ours; None is the plain loop."""
    device: str = "cpu"
    all_cores: bool = False

    def open(self, spec: SceneSpec, form: Format) -> Any:
        """What draws such pictures: a `Renderer`, or a `PlainLoop`.

        Raises:
            BackendError: not on this machine.
        """
        if self.backend is None:
            return PlainLoop(
                spec,
                height=form["height"],
                width=form["width"],
                samples=form["supersample"] ** 2,
            )
        if self.all_cores and available_cpus() == 1:
            raise BackendError("there is one core here, and nobody to share the work with")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise BackendError("torch finds no CUDA card here; it may be a build for the CPU alone")
        return open_renderer(
            spec,
            backend=self.backend,
            device=self.device,
            processes=None if self.all_cores else 1,
            **form,
        )

    def finish(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, once a graphics card has caught up with it."""
        result = work()
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return result


PLAIN_LOOP = Contender("mujoco.Renderer", None)
ALONE = tuple(Contender(backend, backend) for backend in BACKENDS)
TOGETHER = tuple(Contender(f"{name}, all cores", name, all_cores=True) for name in BACKENDS)
CARD = Contender("raycast, card", "raycast", device="cuda")
OURS = (*ALONE, *TOGETHER, CARD)
EVERYONE = (PLAIN_LOOP, *OURS)


@contextmanager
def opened(
    contenders: Iterable[Contender], spec: SceneSpec, form: Format, skipped: dict[str, str]
) -> Iterator[dict[Contender, Any]]:
    """What those draw with that this machine can open; closed in the end.

    Args:
        contenders: who would take part.
        spec: the world.
        form: of the pictures.
        skipped: gets the names of the others, and why.
    """
    here: dict[Contender, Any] = {}
    try:
        for one in contenders:
            try:
                here[one] = one.open(spec, form)
            except BackendError as error:
                skipped[one.name] = str(error)
        yield here
    finally:
        for renderer in here.values():
            close = getattr(renderer, "close", None)
            if close is not None:
                close()


def form_of(spec: SceneSpec, height: int, supersample: int) -> Format:
    """Pictures of that height in the spec's proportions."""
    width = round(height * spec.camera.aspect)
    return Format(height=height, width=width, supersample=supersample, slots=None)
