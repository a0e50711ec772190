"""The command `python -m benchmarks`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmarks import machine
from benchmarks.forward import Forward
from benchmarks.gradient import Gradient
from benchmarks.part import Part, Settings


@dataclass(frozen=True)
class Parts:
    """Every part, with its options. A new part is a file of its own and a line here."""

    forward: Forward = field(default_factory=Forward)
    gradient: Gradient = field(default_factory=Gradient)

    def chosen(self, names: Sequence[str]) -> dict[str, Part]:
        """The parts of these names, in their own order; all if there are no names.

        Raises:
            ValueError: no part has that name.
        """
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in names:
            if name not in known:
                raise ValueError(f"unknown part {name!r}; choose {' or '.join(known)}")
        return {name: part for name, part in known.items() if name in names or not names}


@dataclass(frozen=True)
class Options:
    """Measure things side by side, print tables and write all figures as JSON.

    Contenders take turns in one run, so that their ratios hold on a machine that is not idle;
    the times themselves hold for this machine and moment only.
    """

    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    parts: Annotated[Parts, tyro.conf.arg(name="")] = field(default_factory=Parts)
    only: tuple[str, ...] = ()
    """Names of parts to measure; all when not given."""
    json: Path = Path("runs/benchmarks.json")
    """The file to write."""


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Runs the chosen parts, prints their tables and returns all figures as plain data."""
    parts = options.parts.chosen(options.only)
    result: dict[str, Any] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "settings": asdict(options.settings),
        "parts": {},
    }
    for name, part in parts.items():
        figures = part.measure(options.settings, partial(_report_to_terminal, name))
        _report_to_terminal(name)
        console.print(part.table(figures))
        for contender, reason in figures.skipped.items():
            console.print(f"without {contender}: {reason}", markup=False)
        result["parts"][name] = {"options": dict(vars(part)), **figures.record()}
    result["machine"]["load_average_afterwards"] = machine.load_average()
    return result


def _report_to_terminal(name: str, what: str = "") -> None:
    # The line changes between measurements only: an animation would take part in them.
    if sys.stderr.isatty():
        line = f"{name}: {what} …" if what else ""
        print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. What a user can mend is one line, not a traceback."""
    try:
        options = tyro.cli(Options, args=args, prog="python -m benchmarks")
        options.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
        result = measure(options, Console())
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written to {options.json}")
    return 0
