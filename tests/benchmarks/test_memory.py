import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.memory
from benchmarks.contenders import ALONE, TOGETHER
from benchmarks.memory import Memory, peak_resident
from benchmarks.part import Settings
from renderer.cpus import available_cpus

ROOT = Path(__file__).parents[2]

STATUS = "Name:\tpython\nVmPeak:\t  9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"


def test_reads_the_peak_of_a_process(tmp_path: Path) -> None:
    folder = tmp_path / "17"
    folder.mkdir()
    (folder / "status").write_text(STATUS, encoding="utf-8")
    assert peak_resident(17, tmp_path) == 2048 * 1024
    (folder / "status").write_text("Name:\tpython\n", encoding="utf-8")
    assert peak_resident(17, tmp_path) is None
    assert peak_resident(18, tmp_path) is None


ALLOCATES = """
import numpy as np
from benchmarks.memory import peak_resident
before = peak_resident()
np.ones(300_000_000, dtype=np.uint8)
print(before, peak_resident())
"""


def test_the_peak_outlives_what_made_it() -> None:
    if peak_resident() is None:
        pytest.skip("no /proc here")
    run = subprocess.run(
        [sys.executable, "-c", ALLOCATES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = map(int, run.stdout.split())
    assert 0.9 * 300e6 < after - before < 1.1 * 300e6


def test_each_contender_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = (ALONE[1], TOGETHER[1])
    monkeypatch.setattr(benchmarks.memory, "EVERYONE", everyone)
    figures = Memory(objects=1, size=16).measure(Settings(scenes=2), lambda _: None)
    names = {row["contender"] for row in figures.rows}
    assert names | set(figures.skipped) == {one.name for one in everyone}
    if peak_resident() is not None:
        assert "raycast" in names
        assert ("raycast, all cores" in names) == (available_cpus() > 1)
    for row in figures.rows:
        assert 0 < row["imported"] < row["drawn"] <= row["differentiated"]
        assert (row["processes"] > 1) == (row["contender"] == "raycast, all cores")
