import pytest

from benchmarks.laws import Line


def test_finds_the_line_that_there_is() -> None:
    batches = [1, 4, 16, 64, 256]
    line = Line.through(batches, [0.003 + 0.0005 * batch for batch in batches])
    assert line.once == pytest.approx(0.003)
    assert line.each == pytest.approx(0.0005)
    assert line.error < 1e-9


def test_a_small_value_counts_as_much_as_a_large_one() -> None:
    """A millisecond too much for one picture is an error; for a thousand it is none."""
    line = Line.through([1, 1, 1000, 1000], [0.9, 1.1, 900, 1100])
    assert line.once + line.each == pytest.approx(1, rel=0.02)
    assert line.error == pytest.approx(0.1, rel=0.2)


def test_says_how_far_off_the_worst_is() -> None:
    assert Line.through([1, 2, 3, 4], [1, 2, 3, 8]).error > 0.3


def test_needs_two_places() -> None:
    with pytest.raises(ValueError, match="two different places"):
        Line.through([3, 3], [1, 2])
