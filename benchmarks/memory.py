"""How much memory drawing takes: each contender alone, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.contenders import EVERYONE, Contender, form_of
from benchmarks.crowds import Crowd
from benchmarks.derivative import gradient_of_noise
from benchmarks.part import Figures, Settings
from benchmarks.table import Table
from renderer import BackendError
from renderer.prior import sample

MEGABYTE = 1e6


@dataclass(frozen=True)
class Memory:
    """The most memory that was resident at once, in the computer and not on a card."""

    objects: int = 3
    """Of the tabletop's, in every scene alike."""
    size: int = 64
    """Height of the pictures in pixels."""
    supersample: int = 2
    """Samples a pixel along each axis."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each contender."""
        if min(self.objects, self.size, self.supersample) < 1:
            raise ValueError("memory: objects, size and supersample must be at least 1")
        figures = Figures()
        for one in EVERYONE:
            say(one.name)
            if peak_resident() is None:
                figures.skipped[one.name] = "this system does not tell the peak in /proc"
                continue
            spawn = multiprocessing.get_context("spawn")
            # An executor's worker may have workers of its own, which a daemon may not.
            with ProcessPoolExecutor(1, mp_context=spawn) as executor:
                try:
                    peaks = executor.submit(measure_alone, one, self, settings).result()
                except BackendError as error:
                    figures.skipped[one.name] = str(error)
                    continue
            scenes = settings.batch(one.device)
            figures.rows.append({"contender": one.name, "scenes": scenes, **asdict(peaks)})
        return figures

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The peaks for people."""

        def cell(value: int | None) -> str:
            return "–" if value is None else f"{value / MEGABYTE:.0f}"

        return {
            "memory": Table(
                f"Peak of resident memory in MB: {self.size} px, "
                f"{self.supersample}×{self.supersample} samples",
                ("contender", "scenes", "processes", "imported", "drawn", "with a gradient"),
                tuple(
                    (
                        row["contender"],
                        str(row["scenes"]),
                        str(row["processes"]),
                        *(cell(row[key]) for key in ("imported", "drawn", "differentiated")),
                    )
                    for row in figures.rows
                ),
                note="What several processes share, the libraries above all, counts for each.",
            )
        }


@dataclass(frozen=True)
class Peaks:
    """Bytes that were resident at most until then, of all processes of a contender together."""

    processes: int
    imported: int
    """When all libraries were loaded and nothing was open yet."""
    drawn: int
    """After one batch."""
    differentiated: int | None
    """After one gradient of it; None for those that have none."""


def measure_alone(one: Contender, part: Memory, settings: Settings) -> Peaks:
    """Draws a batch and goes back through it, in a process that has done nothing else.

    Raises:
        BackendError: this machine cannot open the contender.
    """
    imported = all_resident()
    spec = Crowd(part.objects).spec()
    generator = torch.Generator().manual_seed(settings.seed)
    scene = sample(spec, settings.batch(one.device), generator=generator)
    renderer = one.open(spec, form_of(spec, part.size, part.supersample))
    renderer.render_bytes(scene)
    drawn, differentiated = all_resident(), None
    if one.backend is not None:
        scene = scene.to(one.device)
        gradient_of_noise(renderer, scene, scheme="forward", azimuth=False, seed=settings.seed)()
        differentiated = all_resident()
    processes = 1 + len(multiprocessing.active_children())
    getattr(renderer, "close", lambda: None)()
    return Peaks(processes, imported, drawn, differentiated)


def all_resident() -> int:
    """Peaks of this process and its workers together, bytes."""
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    return sum(peak_resident(pid) or 0 for pid in [os.getpid(), *workers])


def peak_resident(pid: int | None = None, root: Path = Path("/proc")) -> int | None:
    """The most memory that a process had resident, bytes; None where the system does not tell.

    Not `getrusage`, whose peak a process inherits from the one that started it.

    Args:
        pid: of the process; this one when not given.
        root: of the process file system.
    """
    try:
        text = (root / str(pid or "self") / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(found[0]) if found else None
