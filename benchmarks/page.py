"""The pages about speed: their prose is written by hand, their numbers by this."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks import drawing, plots, record
from benchmarks.parts import tables_of

PAGE, FIGURES, IMAGES = "rendering.md", "rendering.json", "images"
# What was measured of the service alone, without anything of rendering, has a page of its own.
SERVICE, SERVICE_PAGE, SERVICE_FIGURES = {"service"}, "service-speed.md", "service-speed.json"

_BLOCK = re.compile(
    r"(?P<begin><!-- begin: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def make(result: dict[str, Any], folder: Path) -> list[Path]:
    """Refreshes a page in `folder`, its images, and the figures that both are made from.

    Of the service, when nothing else was measured, otherwise of rendering.

    Returns:
        The files that were written.

    Raises:
        ValueError: the page wants what was not measured.
        OSError: there is no page.
    """
    of_service = set(result["parts"]) == SERVICE
    names = (SERVICE_PAGE, SERVICE_FIGURES) if of_service else (PAGE, FIGURES)
    page, figures = (folder / name for name in names)
    text = refreshed(page.read_text(encoding="utf-8"), blocks(result))
    drawn: list[Path] = []
    if not of_service:
        images = folder / IMAGES
        images.mkdir(exist_ok=True)
        drawn = [*plots.draw(result, images), drawing.draw(images)]
    page.write_text(text, encoding="utf-8")
    record.write(figures, result)
    return [page, figures, *drawn]


def refreshed(text: str, contents: dict[str, str]) -> str:
    """The page with the contents between its markers `<!-- begin: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: there are no contents of that name, or a marker lacks its other half.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in contents:
            raise ValueError(
                f"the page wants {name!r}, and the measurements have only "
                f"{', '.join(contents)}; measure all parts"
            )
        return f"{found['begin']}{contents[name]}\n{found['end']}"

    begins, ends = text.count("<!-- begin:"), text.count("<!-- end -->")
    if not begins == ends == len(_BLOCK.findall(text)):
        raise ValueError(
            f"{begins} blocks begin in the page and {ends} end; each needs a line "
            "`<!-- begin: NAME -->` and a line `<!-- end -->`"
        )
    return _BLOCK.sub(block, text)


def blocks(result: dict[str, Any]) -> dict[str, str]:
    """All that a page can show of measurements, by name, as Markdown."""
    tables = {f"table-{name}": table.markdown() for name, table in tables_of(result).items()}
    return {"measured": _measured(result), **tables}


def _measured(result: dict[str, Any]) -> str:
    """On what, when and how it was measured, and who was missing."""
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    driver = machine["opengl"]["renderer"] if machine["opengl"] else "none"
    loads = [machine[key] for key in ("load_average", "load_average_afterwards")]
    load = " and ".join("unknown" if one is None else f"{one[0]:.1f}" for one in loads)
    missing = {
        contender: reason
        for part in result["parts"].values()
        for contender, reason in part["skipped"].items()
    }
    batches = f" of {settings['scenes']} scenes where nothing else is said; more of small batches"
    if set(result["parts"]) == SERVICE:
        batches = ""
    minutes = sum(part["took"] for part in result["parts"].values()) / 60
    lines = [
        f"- command: `{result['command']}`; it took {minutes:.1f} minutes",
        f"- seed {settings['seed']}, medians of up to {settings['rounds']} rounds{batches}",
        f"- {machine['available_cpus']} processors of {machine['processor']}, torch on "
        f"{machine['torch_threads']} thread(s)",
        f"- OpenGL: {driver}; graphics card: {machine['card'] or 'none'}",
        f"- load of the machine before and afterwards: {load}",
        f"- {versions}",
        f"- {result['measured']}",
        *(f"- without {contender}: {reason}" for contender, reason in missing.items()),
    ]
    return "\n".join(lines)
