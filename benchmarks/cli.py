"""The command `python -m benchmarks`."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmarks import machine, page, record
from benchmarks.part import Settings
from benchmarks.parts import Parts
from benchmarks.servers import ServerError

PLOTS = "plots"


@dataclass(frozen=True)
class Options:
    """Measure things side by side, print tables and write all figures as JSON.

    Contenders take turns in one run, so that their ratios hold on a machine that is not idle;
    the times themselves hold for this machine and moment only.

    `python -m benchmarks plots FILE` makes the page about rendering speed from such a file, or,
    when it is of the part `service` alone, the one about the service's.
    """

    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    parts: Annotated[Parts, tyro.conf.arg(name="")] = field(default_factory=Parts)
    only: tuple[str, ...] = ()
    """Names of parts to measure; all when not given."""
    json: Path = Path("runs/benchmarks.json")
    """The file to write."""


def measure(options: Options, console: Console, command: str) -> dict[str, Any]:
    """Runs the chosen parts, prints their tables and returns all figures as plain data.

    Args:
        options: what to measure.
        console: where the tables are printed.
        command: kept with the figures, to be given again.
    """
    parts = options.parts.chosen(options.only)
    result: dict[str, Any] = {
        "command": command,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "settings": asdict(options.settings),
        "parts": {},
    }
    for name, part in parts.items():
        start = time.perf_counter()
        figures = part.measure(options.settings, partial(_report_to_terminal, name))
        seconds = time.perf_counter() - start
        _report_to_terminal(name)
        for table in part.tables(figures).values():
            console.print(table.for_terminal())
        for contender, reason in figures.skipped.items():
            console.print(f"without {contender}: {reason}", markup=False)
        options_used = asdict(part)  # type: ignore[call-overload]
        result["parts"][name] = {"options": options_used, "took": seconds, **figures.record()}
    result["machine"]["load_average_afterwards"] = machine.load_average()
    return result


@dataclass(frozen=True)
class Plots:
    """Draw measurements and write them into the page about rendering speed, or the service's."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """What `python -m benchmarks` wrote, once or for one figure after another."""
    out: Path = Path("docs")
    """The folder of rendering.md and service-speed.md, whose tables are written anew."""


def _report_to_terminal(name: str, what: str = "") -> None:
    # The line changes between measurements only: an animation would take part in them.
    if sys.stderr.isatty():
        line = f"{name}: {what} …" if what else ""
        print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. What a user can mend is one line, not a traceback."""
    arguments = list(sys.argv[1:] if args is None else args)
    # As Ctrl+C: servers and workers that a part has started end with it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    prog = "python -m benchmarks"
    try:
        if arguments[:1] == [PLOTS]:
            plots = tyro.cli(Plots, args=arguments[1:], prog=f"{prog} {PLOTS}")
            if not plots.files:
                raise ValueError(f"no file; name what `{prog}` wrote")
            results = [record.read(file) for file in plots.files]
            for written in page.make(record.joined(results), plots.out):
                print(written)
            return 0
        options = tyro.cli(Options, args=arguments, prog=prog)
        options.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
        record.write(
            options.json, measure(options, Console(), shlex.join([*prog.split(), *arguments]))
        )
    except (ValueError, OSError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written to {options.json}")
    return 0
