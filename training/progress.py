"""The progress of a training run on the terminal, or as plain lines in a log file."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 30.0  # between two lines where there is no terminal


class Progress:
    """Step, loss, throughput and time left.

    Args:
        step: where the run starts.
        total: where it ends, when that is known.
        batch: images a step.
        quiet: says nothing: another process of the run does.
    """

    def __init__(self, step: int, total: int | None, batch: int, *, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet)
        self._bar = Bar(
            TextColumn("step {task.completed:.0f}/{task.total}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("train", completed=step, total=total, loss=0.0, speed=0.0)
        self._batch, self._total = batch, total
        self._loss: float | None = None
        self._mark = self._line = time.monotonic()
        self._marked_step = step
        self.images_per_second = 0.0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def retarget(self, total: int | None) -> None:
        """The run's end has become known."""
        self._total = total
        self._bar.update(self._task, total=total)

    def advance(self, step: int, loss: float) -> None:
        """`step` steps are done; the last one had this loss."""
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if now - self._mark > 2.0:
            self.images_per_second = self._batch * (step - self._marked_step) / (now - self._mark)
            self._mark, self._marked_step = now, step
        self._bar.update(self._task, completed=step, loss=self._loss, speed=self.images_per_second)
        if not self._console.is_terminal and now - self._line > LINE_SECONDS:
            self._line = now
            left = ""
            if self._total is not None and self.images_per_second:
                seconds = (self._total - step) * self._batch / self.images_per_second
                left = f"  {seconds / 60:.0f} min left"
            self._console.print(
                f"step {step}/{self._total}  loss {self._loss:.3f}  "
                f"{self.images_per_second:.0f} images/s{left}",
                highlight=False,
                soft_wrap=True,
            )

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def report(self, figures: dict[str, Any]) -> None:
        """Prints figures measured on held-out scenes."""
        text = "  ".join(
            f"{name} {value:.4g}" for name, value in figures.items() if value is not None
        )
        self.say(f"held out: {text}")
