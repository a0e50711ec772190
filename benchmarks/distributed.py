"""How much faster several processes train than one, each with a core of its own."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.part import Figures, Settings
from benchmarks.table import Table, digits
from renderer.choice import OVERRIDE
from renderer.cpus import available_cpus

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Distributed:
    """The same steps, of the same total batch, by one process with one core, and by several."""

    experiment: str = "tabletop"
    """What is trained: drawing, the network, and the exchange of gradients."""
    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes; the first is what the others are compared to."""
    steps: int = 20
    """Of each training; some more before do not count."""
    rounds: int = 3
    """Trainings of each, in turns."""
    backend: str = "opengl"
    """That draws: the same in all of them."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each number of processes."""
        if min((*self.processes, self.steps, self.rounds), default=0) < 1:
            raise ValueError("distributed: processes, steps and rounds must be at least 1")
        figures = Figures()
        possible = [number for number in self.processes if number <= available_cpus()]
        for number in set(self.processes) - set(possible):
            figures.skipped[f"{number} processes"] = f"there are {available_cpus()} cores"
        taken: dict[int, list[list[dict[str, Any]]]] = {number: [] for number in possible}
        for turn in range(self.rounds):
            for number in possible:
                say(f"{number} processes, round {turn + 1} of {self.rounds}")
                taken[number].append(self._train(number))
        for number in possible:
            clock = [trainees[0]["images"] / trainees[0]["seconds"] for trainees in taken[number]]
            # What it would be with no other program on the machine: the slowest decides.
            processor = [
                trainees[0]["images"] / max(one["processor_seconds"] for one in trainees)
                for trainees in taken[number]
            ]
            figures.rows.append(
                {
                    "processes": number,
                    "images_per_second": clock,
                    "images_per_processor_second": processor,
                    "trainings": taken[number],
                }
            )
        for row in figures.rows:
            for key in ("images_per_second", "images_per_processor_second"):
                first = statistics.median(figures.rows[0][key])
                row[f"{key}_ratio"] = statistics.median(row[key]) / first
        return figures

    def _train(self, processes: int) -> list[dict[str, Any]]:
        """What each of that many processes took.

        Raises:
            ValueError: one of them failed.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.trainee", self.experiment, str(self.steps)]
        started = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                    OVERRIDE: self.backend,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]
        outputs = [process.communicate() for process in started]
        for process, (_, complaint) in zip(started, outputs, strict=True):
            if process.returncode:
                raise ValueError(f"distributed: a process failed: {complaint.strip()[-500:]}")
        return [json.loads(said.strip().splitlines()[-1]) for said, _ in outputs]

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people."""
        return {
            "distributed": Table(
                f"Training `{self.experiment}` with one core for each process",
                ("processes", "images/s", "times", "images/s of processor", "times"),
                tuple(
                    (
                        str(row["processes"]),
                        digits(statistics.median(row["images_per_second"])),
                        digits(row["images_per_second_ratio"]),
                        digits(statistics.median(row["images_per_processor_second"])),
                        digits(row["images_per_processor_second_ratio"]),
                    )
                    for row in figures.rows
                ),
                labels=1,
                note="Of processor: by the busiest process, as if it never waited. On a machine "
                "with other programs only that means something; waiting for gradients is in the "
                "first alone.",
            )
        }
