"""What a part of the benchmarks is, and what all parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.table import Table

QUICK = 16  # scenes; a batch of fewer is drawn so quickly that any pause of the machine shows


@dataclass(frozen=True)
class Settings:
    """What holds for every part."""

    rounds: int = 7
    """How often each contender is timed, at most."""
    patience: float = 6.0
    """Seconds after which contenders that take turns have had rounds enough; three at least."""
    scenes: int = 64
    """In a batch, where a part has no size of its own."""
    card_scenes: int = 4096
    """In a batch for a graphics card, which a small one would leave idle."""
    seed: int = 0
    """Of the scenes."""

    def __post_init__(self) -> None:
        for name in ("rounds", "scenes", "card_scenes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def batch(self, device: str, scenes: int | None = None) -> int:
        """Scenes in a batch on that device; `scenes` of them, or the usual number, on the CPU."""
        return (scenes or self.scenes) if device == "cpu" else self.card_scenes

    def rounds_of(self, scenes: int) -> int:
        """Rounds for a batch of that size: more of small ones, which are over in a millisecond."""
        return self.rounds * max(1, QUICK // scenes)


@dataclass(frozen=True)
class Figures:
    """What a part measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Plain data, one entry for each contender or comparison."""
    laws: list[dict[str, Any]] = field(default_factory=list)
    """Plain data, one entry for each line through some of the rows; see `benchmarks.laws`."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Contender -> why it could not take part."""

    def record(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"skipped": self.skipped, "rows": self.rows, "laws": self.laws}

    @staticmethod
    def of(record: dict[str, Any]) -> Figures:
        """What `record` gave."""
        return Figures(record["rows"], record["laws"], record["skipped"])


class Part(Protocol):
    """One kind of measurement; its fields are its options."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """Measures; `say` is told now and then what is under way."""
        ...

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people, by the names under which a page shows them."""
        ...
