"""What pages of results are made of: tables, numbers, pictures with captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

IMAGES = "images"  # folder of the pictures, beside the page
CAPTIONS = "captions.json"  # in it: from names of pictures to sentences, for whoever shows them


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float | None, form: str, factor: float = 1.0, unit: str = "") -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else format(factor * value, form) + unit


def picture(file: Path, caption: str, *, about: str) -> str:
    """A picture of the page with its caption, which is told to the folder's captions as well.

    Args:
        file: in the folder of pictures.
        caption: a sentence.
        about: what the page's reader knows from its heading.
    """
    told = read_json(file.with_name(CAPTIONS)) or {}
    told[file.name] = f"{about}: {caption}"
    content = json.dumps(told, indent=1, sort_keys=True) + "\n"
    file.with_name(CAPTIONS).write_text(content, encoding="utf-8")
    return f"![{caption}]({IMAGES}/{file.name})\n\n*{caption}*\n"


def read_json(file: Path) -> Any:
    """What a file holds, or None when there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
