"""A checkpoint that is calibrated means what it says on scenes that it was not calibrated on."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import training.calibration as module
from inference.build import build_posterior
from inference.checkpoint import load_checkpoint, recalibrate, save_checkpoint
from inference.estimate import Estimate
from inference.posterior import PosteriorConfig
from renderer import Scene, SceneSpec
from training.calibration import Fitted, calibrate
from training.dreams import generator_for
from training.inferred import run
from training.reliability import coverage, gaussian_coverage

TINY = PosteriorConfig(height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1)


class Overconfident:
    """Stands for a network that is three times as far off as it says."""

    def __init__(self, patch: pytest.MonkeyPatch, spec: SceneSpec) -> None:
        self.network = build_posterior(spec, TINY)
        self.generator, self.drawn = generator_for("overconfident"), Scene.empty(0, 3)
        from training import inferred

        sample = inferred.sample

        def remember(*args: object, **kwargs: object) -> Scene:
            self.drawn = sample(*args, **kwargs)  # type: ignore[arg-type]
            return self.drawn

        patch.setattr(inferred, "sample", remember)
        patch.setattr(self.network, "infer", self.infer)

    def noise(self, *shape: int) -> Tensor:
        return 3 * torch.randn(*shape, generator=self.generator)

    def infer(self, image: Tensor) -> Estimate:
        true, size = self.drawn, len(self.drawn)
        scene = dataclasses.replace(
            true,
            position=true.position + 0.002 * self.noise(size, 3, 2),
            yaw=true.yaw + 0.03 * self.noise(size, 3),
            azimuth=true.azimuth + 0.001 * self.noise(size),
        )
        return Estimate(
            scene,
            torch.nn.functional.one_hot(true.count, 4).float(),
            true.presence.float(),
            torch.nn.functional.one_hot(true.identity, 3).float(),
            (0.002**2 * torch.eye(2)).expand(size, 3, 2, 2),
            torch.full((size, 3), 0.03),
            torch.full((size,), 0.001),
        )


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


def test_overconfidence_is_mended(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Overconfident(monkeypatch, spec)
    fitted = calibrate(
        model.network, backend="raycast", supersample=1, scenes=512, refined_scenes=0
    )
    assert fitted.calibration is not None and fitted.calibration.refined is None
    inferred, _ = run(
        model.network,
        scenes=512,
        generator=generator_for("evaluate", 3),
        backend="raycast",
        supersample=1,
        nuisance=False,
        calibration=fitted.calibration,
    )
    for of in (coverage, gaussian_coverage):
        for given in of(spec, inferred.estimate, inferred.true).values():
            for level, share in given.items():
                assert share == pytest.approx(float(level), abs=0.06)
    assert float(inferred.estimate.azimuth_std.mean()) == pytest.approx(0.003, rel=0.15)


def test_a_network_that_finds_nothing_has_limits_only(spec: SceneSpec) -> None:
    torch.manual_seed(0)
    network = build_posterior(spec, TINY)
    fitted = calibrate(network, backend="raycast", supersample=1, scenes=20, refined_scenes=8)
    assert fitted.calibration is None and fitted.limits.block > 0


def test_what_was_fitted_is_kept_with_the_weights(
    spec: SceneSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = Overconfident(monkeypatch, spec)
    fitted: Fitted = calibrate(
        model.network, backend="raycast", supersample=1, scenes=128, refined_scenes=0
    )
    save_checkpoint(tmp_path, build_posterior(spec, TINY), name="tiny")
    before = load_checkpoint(tmp_path)
    assert before.config.calibration is None and before.config.novelty is None
    assert fitted.calibration is not None
    recalibrate(tmp_path, fitted.calibration, fitted.limits)
    after = load_checkpoint(tmp_path)
    assert (after.config.calibration, after.config.novelty) == fitted
    assert after.sha256 == before.sha256
    image = torch.rand(4, 3, 32, 32, generator=generator_for("image"))
    raw, honest = before.infer(image), after.infer(image)
    assert torch.equal(raw.scene.position, honest.scene.position)
    assert not torch.equal(raw.azimuth_std, honest.azimuth_std)
    assert torch.equal(raw.azimuth_std, after.posterior.infer(image).azimuth_std)


def test_limits_are_above_what_is_known() -> None:
    block, doubt = torch.linspace(0, 0.01, 101), torch.zeros(101)
    limits = module.limits_of(block, doubt)
    assert limits.block == pytest.approx(1.5 * 0.0099)
    assert limits.doubt == module.LEAST_DOUBT, "hesitating between two answers is not novel"
