"""The page about rendering speed says what was measured, and nothing else."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, plots, record
from benchmarks.cli import main

DOCS = Path(__file__).parents[2] / "docs"
MARKER = re.compile(r"<!-- begin: ([\w-]+) -->")
IMAGE = re.compile(r"\]\((images/rendering-[\w-]+\.svg)\)")
LARGEST_IMAGE = 100_000  # bytes


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return record.read(DOCS / page.FIGURES)


@pytest.fixture(scope="module")
def text() -> str:
    return (DOCS / page.PAGE).read_text(encoding="utf-8")


def test_numbers_are_those_measured(text: str, result: dict[str, Any]) -> None:
    assert page.refreshed(text, page.blocks(result)) == text


def test_shows_all_that_was_measured(text: str, result: dict[str, Any]) -> None:
    assert sorted(MARKER.findall(text)) == sorted(page.blocks(result))


def test_prose_has_no_measured_numbers(text: str) -> None:
    """They would stay when the measurements change."""
    prose = re.sub(r"<!-- begin.*?<!-- end -->|```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.S)
    found = re.findall(r"\d+(?:\.\d+)? ?(?:%|×|ms\b|s\b|images|MB)", prose)
    assert not found


def test_images_are_there_and_small(text: str) -> None:
    names = IMAGE.findall(text)
    assert sorted(names) == sorted(
        file.relative_to(DOCS).as_posix() for file in (DOCS / "images").glob("rendering-*")
    )
    for name in names:
        assert (DOCS / name).stat().st_size < LARGEST_IMAGE


def test_command_makes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(DOCS / page.PAGE, tmp_path)
    assert main(["plots", str(DOCS / page.FIGURES), "--out", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    for name in (page.PAGE, page.FIGURES):
        assert tmp_path / name in written
        assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes()
    images = [file for file in written if file.suffix == ".svg"]
    assert {file.name for file in images} == {
        file.name for file in (DOCS / "images").glob("rendering-*")
    }


def test_plots_of_the_same_figures_are_the_same(tmp_path: Path, result: dict[str, Any]) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        plots.draw(result, folder)
    files = [sorted(folder.iterdir()) for folder in folders]
    assert files[0]
    for one, other in zip(*files, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_every_contender_has_a_look(result: dict[str, Any]) -> None:
    for name in ("forward", "growth"):
        assert {row["contender"] for row in result["parts"][name]["rows"]} <= set(plots.LOOKS)


def test_what_was_not_measured_is_named(
    tmp_path: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DOCS / page.PAGE, tmp_path)
    before = (tmp_path / page.PAGE).read_bytes()
    part = {**result, "parts": {"forward": result["parts"]["forward"]}}
    record.write(tmp_path / "forward.json", part)
    assert main(["plots", str(tmp_path / "forward.json"), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "measure all parts" in error
    assert (tmp_path / page.PAGE).read_bytes() == before


def test_several_files_are_one(result: dict[str, Any]) -> None:
    forward = {**result, "command": "a", "parts": {"forward": result["parts"]["forward"]}}
    growth = {**result, "command": "b", "parts": {"growth": result["parts"]["growth"]}}
    one = record.joined([forward, growth])
    assert one["command"] == "a && b"
    assert one["parts"] == {name: result["parts"][name] for name in ("forward", "growth")}
    twice = record.joined([forward, forward])["parts"]["forward"]
    assert twice["rows"] == 2 * result["parts"]["forward"]["rows"]
    assert twice["took"] == 2 * result["parts"]["forward"]["took"]
    elsewhere = {**result, "machine": {**result["machine"], "processor": "another"}}
    with pytest.raises(ValueError, match="several machines"):
        record.joined([forward, elsewhere])


@pytest.mark.parametrize("content", ["{", "[]", '{"machine": 1}'])
def test_refuses_other_files(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.json"
    file.write_text(content, encoding="utf-8")
    assert main(["plots", str(file), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file} ") and error.count("\n") == 1


def test_refreshes_between_markers_only() -> None:
    before = "# A\n<!-- begin: a -->\nold\n<!-- end -->\nprose\n"
    after = "# A\n<!-- begin: a -->\nnew\n1\n<!-- end -->\nprose\n"
    assert page.refreshed(before, {"a": "new\n1", "b": "unused"}) == after
    with pytest.raises(ValueError, match="wants 'a'"):
        page.refreshed(before, {"b": ""})
    with pytest.raises(ValueError, match="1 blocks begin in the page and 0 end"):
        page.refreshed(before.replace("<!-- end -->", ""), {"a": ""})


def test_record_keeps_what_was_measured(tmp_path: Path) -> None:
    rows = [{"contender": "a", "seconds": {"rounds": [0.12345678, 2]}}, {"contender": "b"}]
    part = {"options": {"sizes": (1, 2)}, "skipped": {}, "rows": rows, "laws": []}
    result = {"machine": {}, "settings": {"seed": 0}, "parts": {"forward": part}}
    file = tmp_path / "figures.json"
    record.write(file, result)
    rounded = json.loads(json.dumps(result).replace("0.12345678", "0.123457"))
    assert record.read(file) == rounded
    # A row is a line.
    assert sum('"contender"' in line for line in file.read_text().splitlines()) == 2
