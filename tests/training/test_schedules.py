"""Learning rate and tolerance over a run."""

from itertools import pairwise
from pathlib import Path

import pytest

from inference.posterior import PosteriorConfig
from training.experiments import Experiment
from training.run import RunOptions
from training.scene_run import SceneRun


@pytest.fixture
def run(tmp_path: Path) -> SceneRun:
    network = PosteriorConfig(
        height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
    )
    experiment = Experiment(
        name="tiny", spec="objects", network=network, warmup=10, learning_rate=0.01, tolerance=0.03
    )
    return SceneRun(experiment, RunOptions(out=tmp_path, steps=110))


def at(run: SceneRun, step: int) -> tuple[float, float]:
    run.step = step
    return run.learning_rate(), run.tolerance()


def test_learning_rate_warms_up_and_falls_to_zero(run: SceneRun) -> None:
    rates = [at(run, step)[0] for step in range(111)]
    assert rates[:10] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    assert rates[10] == 0.01
    assert rates[60] == pytest.approx(0.005)
    assert rates[110] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_tolerance_shrinks_to_a_thirtieth_and_then_to_nothing(run: SceneRun) -> None:
    assert [at(run, step)[1] for step in (0, 10)] == [0.03, 0.03]
    assert at(run, 35)[1] == pytest.approx(0.03 / 30**0.5)
    assert at(run, 59)[1] == pytest.approx(0.03 / 30**0.98)
    assert at(run, 60)[1] == at(run, 109)[1] == 0.0


def test_before_the_end_is_known_the_schedules_wait(run: SceneRun) -> None:
    run.total = None
    assert at(run, 500) == (0.01, 0.03)
