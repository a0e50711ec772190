from collections.abc import Callable

import pytest

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


def test_patience_ends_after_three_rounds() -> None:
    clock = Clock()
    contenders = {name: clock.contender(name, 1, 2, 3, 4, 5, 6) for name in "AB"}
    timings = take_turns(contenders, 5, patience=3, clock=clock)
    # Not within a round: all have the same number of them.
    assert [timing.seconds for timing in timings.values()] == [(2, 3, 4)] * 2
    timings = take_turns({"A": clock.contender("A", 1, 9, 9)}, 2, patience=3, clock=clock)
    assert timings["A"].seconds == (9, 9)


def test_patience_is_not_tried_by_the_quick() -> None:
    clock = Clock()
    timings = take_turns({"A": clock.contender("A", *[1] * 9)}, 8, patience=100, clock=clock)
    assert len(timings["A"].seconds) == 8
