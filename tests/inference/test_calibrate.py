"""What is fitted to errors gives back how they were made; what is applied means what it says."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from inference.calibrate import Calibration, Curve, Law, Laws, Lost, Tails, grain_of, hinges
from inference.errors import LEVELS, ErrorLaw
from inference.estimate import Estimate
from inference.fitting import FittingError, fit_law, fit_temperature
from inference.refine import Refined
from renderer.scene import Scene

M = 3000
ORDERS = torch.tensor([1, 0])  # a cup and a plate


def claimed(generator: torch.Generator) -> Tensor:
    """Standard deviations of all sizes."""
    return torch.exp(torch.randn(M, generator=generator) - 4)


def gaussian(generator: torch.Generator) -> Tensor:
    return torch.randn(M, generator=generator)


def test_a_wrong_width_is_mended_where_it_is_wrong(generator: torch.Generator) -> None:
    """Too wide where little is claimed, too narrow where much is, and more so with grain."""
    claim = claimed(generator)
    grain = 0.01 * (torch.rand(M, generator=generator) < 0.5)
    true = 0.01 * (claim / 0.01) ** 1.3 * (1 + (grain / 0.002) ** 2) ** 0.1
    error = (true * gaussian(generator)).abs()
    law = fit_law([claim], error, grain, order=torch.ones(M))
    for rows in (claim < claim.median(), claim >= claim.median(), grain > 0, grain == 0):
        inside = law([claim[rows]], grain[rows]).within_turn(error[rows])
        for level in LEVELS:
            share = float((inside <= level).float().mean())
            assert share == pytest.approx(level, abs=0.03), level
    ratio = law([claim], grain).turn((0.6827,))[:, 0] / true
    assert 0.8 < float(ratio.quantile(0.05)) < float(ratio.quantile(0.95)) < 1.25


def test_tails_and_turned_around_objects_are_found(generator: torch.Generator) -> None:
    claim = claimed(generator) * 3
    wide = torch.rand(M, generator=generator) < 0.1
    error = claim * gaussian(generator) * torch.where(wide, 4.0, 1.0)
    kind = (torch.rand(M, generator=generator) < 0.5).long()  # only those of one class turn round
    doubtful = (kind == 1) & (claim > 0.15) & (torch.rand(M, generator=generator) < 0.4)
    error = torch.where(doubtful, math.pi + 0.2 * gaussian(generator), error)
    error = (torch.remainder(error + math.pi, 2 * math.pi) - math.pi).abs()
    law = fit_law(
        [claim], error, torch.zeros(M), order=torch.ones(M), identity=kind, classes=2, flips=True
    )
    said = law([claim], torch.zeros(M), kind)
    assert (
        float(said.lost[claim < 0.05].mean())
        < float(said.lost[(claim > 0.2) & (kind == 0)].mean()) + 0.02
        < 0.07
        < 0.25
        < float(said.lost[(claim > 0.2) & (kind == 1)].mean())
    )
    inside = said.within_turn(error)
    for level in LEVELS:
        assert float((inside <= level).float().mean()) == pytest.approx(level, abs=0.02)


def test_grain_hides_the_tails(generator: torch.Generator) -> None:
    """Plain pictures with outliers, grainy ones with none: each gets the intervals it should."""
    claim = claimed(generator)
    grainy = torch.rand(M, generator=generator) < 0.5
    wide = ~grainy & (torch.rand(M, generator=generator) < 0.2)
    error = (claim * gaussian(generator) * torch.where(wide, 6.0, 1.0)).abs()
    grain = torch.where(grainy, 0.02, 0.0)
    law = fit_law([claim], error, grain, order=torch.ones(M))
    for rows in (grainy, ~grainy):
        inside = law([claim[rows]], grain[rows]).within_turn(error[rows])
        for level in LEVELS:
            assert float((inside <= level).float().mean()) == pytest.approx(level, abs=0.02)


def test_positions_are_fitted_by_their_distance(generator: torch.Generator) -> None:
    claim = claimed(generator)
    distance = (1.8 * torch.randn(M, 2, generator=generator)).norm(dim=1)
    law = fit_law([claim], distance * claim, torch.zeros(M))
    inside = law([claim], torch.zeros(M)).within_ellipse(distance * claim)
    for level in LEVELS:
        assert float((inside <= level).float().mean()) == pytest.approx(level, abs=0.02)


def test_too_few_errors_are_refused() -> None:
    with pytest.raises(FittingError, match="--scenes"):
        fit_law([torch.ones(5)], torch.ones(5), torch.zeros(5))


def test_overconfidence_has_a_temperature(generator: torch.Generator) -> None:
    logits = 2 * torch.randn(4000, 3, generator=generator)
    truth = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature((3 * logits).softmax(1), truth) == pytest.approx(3.0, rel=0.1)
    assert fit_temperature(logits.softmax(1), truth) == pytest.approx(1.0, rel=0.1)


def test_without_mistakes_the_temperature_stays_near_1() -> None:
    sure = torch.tensor([[0.999, 0.001]]).expand(200, 2)
    assert 0.5 < fit_temperature(sure, torch.zeros(200, dtype=torch.int64)) <= 1.0
    assert fit_temperature(sure[:0], torch.zeros(0, dtype=torch.int64)) == 1.0


def test_a_curve_bends_at_its_points_and_goes_on_as_it_says() -> None:
    curve = Curve(claimed=(0.0, 1.0, 3.0), honest=(2.0, 2.5, 2.5), rises=True)
    x = torch.tensor([-5.0, 0.0, 0.5, 2.0, 3.0, 4.0])
    torch.testing.assert_close(curve(x), torch.tensor([2.0, 2.0, 2.25, 2.5, 2.5, 3.5]))
    still = curve.model_copy(update={"rises": False})
    assert float(still(torch.tensor(9.0))) == 2.5
    assert hinges(x, torch.tensor([1.0])).shape == (6, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"honest": (3.0, 2.0)},
        {"claimed": (1.0, 0.0)},
        {"honest": (1.0,)},
        {"honest": (1.0, math.nan)},
    ],
)
def test_a_curve_that_falls_is_refused(change: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        Curve.model_validate({"claimed": (0.0, 1.0), "honest": (0.0, 1.0), "rises": True, **change})


def test_grain_is_measured_and_edges_are_not_grain(generator: torch.Generator) -> None:
    flat = torch.full((3, 3, 64, 64), 0.4)
    flat[:, :, :, 40:] = 0.9
    flat[:, :, 20:] -= 0.2
    std = torch.tensor([0.0, 0.01, 0.03])
    noise = torch.randn(flat.shape, generator=generator) * std[:, None, None, None]
    torch.testing.assert_close(grain_of(flat + noise), std, rtol=0.1, atol=1e-4)


def times(factor: float, *, claims: int = 1, lost: Lost | None = None) -> Law:
    """A law that makes every claim so many times wider; of two claims the second says nothing."""
    first = Curve(
        claimed=(-20.0, 5.0), honest=(-20.0 + math.log(factor), 5.0 + math.log(factor)), rises=True
    )
    rest = [Curve(claimed=(0.0,), honest=(0.0,), rises=False)] * (claims - 1)
    return Law(curves=(first, *rest), grain=0.0, tails=Tails(), lost=lost)


def calibration(single: float = 2.0, refined: float | None = None) -> Calibration:
    def laws(factor: float, claims: int) -> Laws:
        law = times(factor, claims=claims)
        return Laws(
            position=law, yaw=law, azimuth=law, count_temperature=2.0, class_temperature=1.0
        )

    return Calibration(
        scenes=1,
        refined_scenes=0 if refined is None else 1,
        seed=0,
        single=laws(single, 1),
        refined=None if refined is None else laws(refined, 2),
    )


@pytest.fixture
def estimate() -> Estimate:
    """Of one image: a cup and a plate, and what would come next."""
    scene = Scene.empty(1, 3)
    scene.presence[0, :2] = True
    scene.identity[0, 1] = 1
    return Estimate(
        scene,
        torch.tensor([[0.04, 0.16, 0.64, 0.16]]),
        torch.tensor([[0.96, 0.80, 0.16]]),
        torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]]),
        torch.tensor([[4e-6, 1e-6], [1e-6, 9e-6]]).expand(1, 3, 2, 2),
        torch.tensor([[0.1, math.inf, 0.2]]),
        torch.tensor([0.001]),
    )


def test_spreads_become_what_errors_were(estimate: Estimate) -> None:
    honest = calibration(2.0).of_single(estimate, ORDERS, torch.zeros(1))
    torch.testing.assert_close(honest.position_covariance, 4 * estimate.position_covariance)
    assert honest.yaw_std[0, 0] == pytest.approx(0.2, rel=0.01)
    assert honest.yaw_std[0, 1] == math.inf, "no turn of a plate shows"
    assert float(honest.azimuth_std) == pytest.approx(0.002, rel=0.01)
    assert torch.equal(honest.scene.position, estimate.scene.position)
    law = ErrorLaw.of(honest.position_law)
    torch.testing.assert_close(
        law.within_ellipse(law.ellipse((0.8,))[..., 0]), torch.full((1, 3), 0.8)
    )


def test_counts_stay_in_their_order_and_agree_with_presence(estimate: Estimate) -> None:
    honest = calibration().of_single(estimate, ORDERS, torch.zeros(1))
    roots = estimate.count_probabilities.sqrt()
    torch.testing.assert_close(honest.count_probabilities, roots / roots.sum())
    at_least = 1 - honest.count_probabilities.cumsum(1)[:, :-1]
    torch.testing.assert_close(honest.presence_probability, at_least)


def test_refined_spreads_have_laws_of_their_own_where_they_are_curved(estimate: Estimate) -> None:
    both = Estimate.cat([estimate, estimate])
    sharp = replace(both, azimuth_std=both.azimuth_std / 10, yaw_std=both.yaw_std / 10)
    zero = torch.zeros(2)
    refined = Refined(sharp, zero, zero, torch.tensor([True, False]), both)
    honest = calibration(2.0, 3.0).of_refined(refined, ORDERS, zero)
    torch.testing.assert_close(
        honest.azimuth_std, torch.tensor([0.0003, 0.0001]), rtol=0.01, atol=0
    )
    assert honest.yaw_std[0, 0] == pytest.approx(0.03, rel=0.01)
    assert calibration(2.0).of_refined(refined, ORDERS, zero) is sharp


def test_calibrations_are_read_strictly() -> None:
    text = calibration(2.0, 3.0).model_dump_json()
    assert Calibration.model_validate_json(text) == calibration(2.0, 3.0)
    for wrong in ('"format":2', '"format":1,"sharpness":3'):
        with pytest.raises(ValidationError):
            Calibration.model_validate_json(text.replace('"format":1', wrong))
