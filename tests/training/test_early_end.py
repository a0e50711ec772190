"""A run that may end early: its schedules run out, it keeps to its time, and it goes on."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import training.run
from training.objectives import Losses
from training.run import HeldOut, Run, RunOptions
from training.schedule import Schedule
from training.state import read_meta
from training.stopping import Stopping

SOON = Stopping(least_landing=20)
GOOD = {"count_accuracy": 1.0, "recall": 1.0, "position_error_m": 0.0, "yaw_error_rad": None}


class Slope(Run[Tensor]):
    """Learns one number; what is measured of it is what the test says."""

    def __init__(self, options: RunOptions, *, good_from: int = 0, steps: int = 400) -> None:
        super().__init__(Schedule(name="slope", batch=4, steps=steps, warmup=5), options)
        self.good_from, self.rates, self.parts = good_from, [0.0], [0.0]
        if self.resumes:
            self._read_progress()
        self._learn(nn.ModuleDict({"line": nn.Linear(1, 1)}))

    def batches(self, first: int, last: int) -> Generator[Tensor, None, None]:
        for number in range(first, last):
            yield torch.full((4, 1), 1.0 + number % 3)

    def _losses(self, batch: Tensor, generator: torch.Generator) -> Losses:
        self.rates.append(self.learning_rate())
        self.parts.append(self._part())
        loss = (self.learning["line"](batch) - 2 * batch).square().mean()
        return Losses(loss, {"loss": loss})

    def _measure(self) -> HeldOut:
        recall = 1.0 if self.step >= self.good_from else 0.5
        row: dict[str, Any] = {**GOOD, "azimuth_error_rad": 0.0, "recall": recall}
        return HeldOut(row, torch.zeros(3, 4, 4), "nothing")

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        self.saved = training


def options(out: Path, **changed: Any) -> RunOptions:
    usual = {"evaluate_every": 10, "precision": "float32", "stopping": SOON}
    return RunOptions(out=out, **{**usual, **changed})


def test_it_ends_soon_after_it_is_good_with_its_schedules_run_out(tmp_path: Path) -> None:
    run = Slope(options(tmp_path), good_from=30)
    run.go([])
    # Good at 30 and at 40: twice. The landing takes 20 steps.
    assert run.step == run.total == run.saved["steps"] == 60
    assert run.saved["ended"] == "the goals hold on held-out scenes"
    before, after = run.parts[40], run.parts[41]
    assert after == pytest.approx(before, abs=0.01), "no jump"
    assert run.parts[-1] > 0.95 and run.rates[-1] < 0.01 * max(run.rates)
    assert all(a <= b for a, b in zip(run.parts, run.parts[1:], strict=False))


def test_without_goals_it_takes_all_steps(tmp_path: Path) -> None:
    run = Slope(options(tmp_path, stopping=None), steps=80)
    run.go([])
    assert run.step == 80 and run.saved["ended"] == "all steps are done"


def test_one_that_was_stopped_while_landing_ends_where_it_would_have(tmp_path: Path) -> None:
    run = Slope(options(tmp_path), good_from=30)

    class AfterStep50(list[int]):
        def __bool__(self) -> bool:
            return run.step == 50

    run.go(AfterStep50())
    assert run.step == 50 and run.saved["ended"] == "not yet"
    run = Slope(options(tmp_path), good_from=30)
    run.go([])
    assert run.step == run.total == 60
    assert read_meta(tmp_path / "training" / "state.safetensors")["landing"] == [
        40,
        60,
        run.landing[2],
    ]  # type: ignore[index]
    assert run.rates[-1] < 0.01 * max(run.schedule.learning_rate, 0)


def test_the_number_of_steps_follows_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told 100 steps when the machine was busy; it is twice as fast, and has time for more."""
    clock = [0.0]
    monkeypatch.setattr(training.run.time, "monotonic", lambda: clock[0])
    run = Slope(options(tmp_path, stopping=None, budget=100.0, evaluate_every=50))
    run.total = 100
    learn = run.learn

    def slow(batch: Tensor) -> tuple[Losses, Tensor]:
        clock[0] += 0.5
        return learn(batch)

    monkeypatch.setattr(run, "learn", slow)
    run.go([])
    assert run.step == pytest.approx(200, abs=2)
    assert run.seconds == pytest.approx(100, abs=1)


def test_it_never_takes_more_steps_than_planned_unless_minutes_say_so(tmp_path: Path) -> None:
    run = Slope(options(tmp_path, stopping=None, budget=1e6, evaluate_every=50), steps=90)
    run.total = 60
    run.go([])
    assert run.step == 90
