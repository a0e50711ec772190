"""What the commands show and write in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress


@contextmanager
def progress(doing: str, total: int, *, stays: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is told how much more is done.

    Args:
        doing: what is done meanwhile.
        total: how much there is to do.
        stays: whether the bar is left behind when all is done.
    """
    console = Console()
    with Progress(console=console, transient=not stays, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda done: bar.advance(task, done)


def warn(warnings: Iterable[str]) -> None:
    """A line for each."""
    console = Console()
    for warning in warnings:
        console.print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Figures as a file that people can read as well."""
    path.write_text(dumps(figures, indent=1) + "\n", encoding="utf-8")
