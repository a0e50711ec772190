"""All parts there are, by their names: to measure them, and to read what they measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks.browser import Browser
from benchmarks.distributed import Distributed
from benchmarks.forward import Forward
from benchmarks.gradient import Gradient
from benchmarks.growth import Growth
from benchmarks.memory import Memory
from benchmarks.part import Figures, Part
from benchmarks.peer import Peer
from benchmarks.profile import Profile
from benchmarks.serving import Serving
from benchmarks.step import Step
from benchmarks.table import Table


@dataclass(frozen=True)
class Parts:
    """Every part, with its options. A new part is a file of its own and a line here."""

    forward: Forward = field(default_factory=Forward)
    gradient: Gradient = field(default_factory=Gradient)
    growth: Growth = field(default_factory=Growth)
    profile: Profile = field(default_factory=Profile)
    memory: Memory = field(default_factory=Memory)
    step: Step = field(default_factory=Step)
    distributed: Distributed = field(default_factory=Distributed)
    peer: Peer = field(default_factory=Peer)
    service: Serving = field(default_factory=Serving)
    page: Browser = field(default_factory=Browser)

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


def tables_of(result: dict[str, Any]) -> dict[str, Table]:
    """The tables of measurements that were written to a file, by their names."""
    kinds: dict[str, Any] = {item.name: item.default_factory for item in fields(Parts)}
    tables: dict[str, Table] = {}
    for name, kept in result["parts"].items():
        options = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in kept["options"].items()
        }
        tables |= kinds[name](**options).tables(Figures.of(kept))
    return tables
