"""One table, for the terminal and for Markdown: what a page says is what the command printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import rich.table


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    """Columns that say what a row is; numbers stand to the right of them, flush right."""
    note: str = ""
    """What a reader has to know beside the title."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(row)} cells in {len(self.columns)} columns")

    def for_terminal(self) -> rich.table.Table:
        """With a line wherever the first column changes."""
        table = rich.table.Table(title=self.title, caption=self.note or None)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index < self.labels else "right")
        before = None
        for row in self.rows:
            if before not in (None, row[0]):
                table.add_section()
            before = row[0]
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """With the title above and the note below."""
        rules = ["---" if index < self.labels else "---:" for index in range(len(self.columns))]
        lines = [self.columns, tuple(rules), *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join(part for part in (f"*{self.title}*", text, self.note) if part)


def digits(value: float) -> str:
    """To three digits, and never in powers of ten."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in text else text


def spread(values: Mapping[str, float], scale: float = 1.0) -> str:
    """`median (min–max)`, each times `scale`, to three digits."""
    median, least, greatest = (digits(values[key] * scale) for key in ("median", "min", "max"))
    return f"{median} ({least}–{greatest})"
