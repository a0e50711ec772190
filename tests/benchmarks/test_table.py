import pytest
from rich.console import Console

from benchmarks.table import Table, digits, spread

ROWS = (("a", "x", "1"), ("b", "y", "2"))
TABLE = Table("Speed", ("who", "of", "ms"), ROWS, labels=2, note="So.")


def test_markdown() -> None:
    assert TABLE.markdown().splitlines() == [
        "*Speed*",
        "",
        "| who | of | ms |",
        "| --- | --- | ---: |",
        "| a | x | 1 |",
        "| b | y | 2 |",
        "",
        "So.",
    ]


def test_terminal_shows_all_of_it() -> None:
    console = Console(width=60)
    with console.capture() as capture:
        console.print(TABLE.for_terminal())
    printed = capture.get()
    assert all(word in printed for word in ("Speed", "who", "of", "ms", "a", "x", "b", "2", "So."))


def test_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="Speed: 1 cells in 2 columns"):
        Table("Speed", ("who", "ms"), (("a",),))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1234"),
        (99.96, "100"),
        (5.239, "5.24"),
        (0.012345, "0.0123"),
        (0.00001234, "0.000012"),
        (-0.5, "-0.5"),
        (0, "0"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_spread() -> None:
    values = {"median": 1234.5, "min": 0.012345, "max": 99.96}
    assert spread(values) == "1234 (0.0123–100)"
    assert spread(values, 1e3) == "1234500 (12.3–99960)"
