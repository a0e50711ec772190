from collections.abc import Callable

import pytest

from benchmarks.part import spread
from benchmarks.timing import Timing, ratio, take_turns


class Clock:
    """Stands still but for what the contenders say that they took."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def contender(self, name: str, *durations: float) -> Callable[[], None]:
        left = iter(durations)

        def work() -> None:
            self.calls.append(name)
            self.now += next(left)

        return work

    def __call__(self) -> float:
        return self.now


def test_contenders_take_turns() -> None:
    clock = Clock()
    contenders = {name: clock.contender(name, 100, 1, 2, 3) for name in "ABC"}
    timings = take_turns(contenders, 3, clock=clock)
    assert "".join(clock.calls) == "ABC" * 4
    assert list(timings) == ["A", "B", "C"]
    # The first round warms up and does not count.
    assert all(timing.seconds == (1, 2, 3) for timing in timings.values())


def test_each_is_charged_its_own_time() -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", 4, 1, 9), "b": clock.contender("b", 2, 2, 2)}
    timings = take_turns(contenders, 3, warmups=0, clock=clock)
    assert timings["a"].record() == {"median": 4, "min": 1, "max": 9, "rounds": [4, 1, 9]}
    assert ratio(timings["a"], timings["b"]) == 2


def test_rate_turns_least_and_greatest_round() -> None:
    assert Timing((1.0, 2.0, 4.0)).rate(8) == {"median": 4, "min": 2, "max": 8}


def test_needs_a_round() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        take_turns({}, 0)


def test_spread_has_three_digits() -> None:
    values = {"median": 1234.5, "min": 0.012345, "max": 99.96}
    assert spread(values) == "1234 (0.0123–100)"
    assert spread(values, 1e3) == "1234500 (12.3–99960)"
