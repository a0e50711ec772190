"""What a user says of mesh files on the command line, in the place of guesses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from training.units import Unit
from training.upright import UpAxis

Colour = tuple[float, float, float]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Wishes:
    """What the user said of the meshes, by the object's name; "" is for all others."""

    unit: dict[str, Unit] = field(default_factory=dict)
    up: dict[str, UpAxis] = field(default_factory=dict)
    size: dict[str, float] = field(default_factory=dict)  # m, of the longest side
    symmetry: dict[str, int] = field(default_factory=dict)  # 1 none, n n-fold, 0 continuous
    colour: dict[str, Colour] = field(default_factory=dict)


def wishes_of(
    *,
    unit: Sequence[str] = (),
    up: Sequence[str] = (),
    size: Sequence[str] = (),
    symmetry: Sequence[str] = (),
    colour: Sequence[str] = (),
) -> Wishes:
    """Wishes from options, each VALUE for all or NAME=VALUE for one object.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    return Wishes(
        _parsed("unit", unit, _one_of(get_args(Unit))),
        _parsed("up", up, _one_of(get_args(UpAxis))),
        _parsed("size", size, _metres),
        _parsed("symmetry", symmetry, _order),
        _parsed("colour", colour, _rgb),
    )


def _parsed(option: str, given: Sequence[str], read: Callable[[str], Value]) -> dict[str, Value]:
    found = {}
    for item in given:
        name, _, value = item.rpartition("=")
        try:
            found[name] = read(value)
        except ValueError as error:
            raise ValueError(f"--{option} {item}: {error}") from None
    return found


def _one_of(values: Sequence[Any]) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}, or NAME= and one of them")
        return value

    return read


def _metres(value: str) -> float:
    try:
        metres = float(value)
    except ValueError:
        metres = 0.0
    if not 0 < metres < 100:
        raise ValueError("must be the length of the longest side in metres, such as 0.12")
    return metres


def _order(value: str) -> int:
    if value in ("none", "continuous"):
        return 1 if value == "none" else 0
    if not value.isdigit() or not 2 <= int(value) <= 36:
        raise ValueError("must be none, continuous, or n from 2 to 36 when n-fold")
    return int(value)


def _rgb(value: str) -> Colour:
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError:
        red = -1.0
    if red < 0 or not all(0 <= part <= 1 for part in (red, green, blue)):
        raise ValueError("must be red,green,blue from 0 to 1, such as 0.8,0.2,0.1")
    return red, green, blue


def wish_for(wishes: dict[str, Value], name: str) -> Value | None:
    """What is wished for the object of that name: its own wish, or else that for all."""
    return wishes.get(name, wishes.get(""))


def check_names(names: Collection[str], wishes: Wishes) -> None:
    """Raises ValueError if a wish is for an object that there is not."""
    for option, wish in vars(wishes).items():
        for name in wish:
            if name and name not in names:
                raise ValueError(
                    f"--{option} {name}=…: no object is named {name!r}; there are "
                    f"{', '.join(names)}"
                )
