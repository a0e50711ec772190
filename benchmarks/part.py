"""What a part of the benchmarks is, and what all parts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.table import Table


@dataclass(frozen=True)
class Settings:
    """What holds for every part."""

    rounds: int = 7
    """How often each contender is timed."""
    scenes: int = 64
    """In a batch."""
    seed: int = 0
    """Of the scenes."""

    def __post_init__(self) -> None:
        for name in ("rounds", "scenes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True)
class Figures:
    """What a part measured."""

    rows: list[dict[str, Any]]
    """Plain data, one entry for each contender or comparison."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Contender -> why it could not take part."""

    def record(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"skipped": self.skipped, "rows": self.rows}


class Part(Protocol):
    """One kind of measurement; its fields are its options."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """Measures; `say` is told now and then what is under way."""
        ...

    def table(self, figures: Figures) -> Table:
        """The figures for people."""
        ...


def spread(values: Mapping[str, float], scale: float = 1.0) -> str:
    """`median (min–max)`, each times `scale`, to three digits."""
    median, least, greatest = (_digits(values[key] * scale) for key in ("median", "min", "max"))
    return f"{median} ({least}–{greatest})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def close(*renderers: object) -> None:
    """Frees what the backends hold that can be freed by hand."""
    for renderer in renderers:
        if hasattr(renderer, "close"):
            renderer.close()
