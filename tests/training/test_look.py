"""The colours of a world, found on pictures whose scenes are told by somebody who knows them."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from inference.build import AnyPosterior, build_posterior
from inference.posterior import PosteriorConfig
from renderer import Renderer, Scene, SceneSpec, open_renderer
from renderer.appearance import Appearance
from renderer.prior import sample
from training.look import Look, dreamt, fit_look, stage_of

SIZE = 64
FOUND = Look(
    table=(0.30, 0.35, 0.40),
    background=(0.10, 0.05, 0.00),
    objects=((0.2, 0.6, 0.3), (0.5, 0.3, 0.1), (0.7, 0.6, 0.5)),
    std=0.1,
    stage=0,
)


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop-fixed")


def drawing(spec: SceneSpec) -> Renderer:
    return open_renderer(spec, height=SIZE, width=SIZE, supersample=2, backend="raycast")


def one_who_knows(spec: SceneSpec, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> AnyPosterior:
    """A posterior that answers with the truth, whatever it is shown, batch after batch."""
    config = PosteriorConfig(height=SIZE, width=SIZE, channels=8, blocks=1)
    posterior = build_posterior(spec, config)
    told = 0

    def infer(image: Tensor) -> SimpleNamespace:
        nonlocal told
        first = told % len(scene)
        told += len(image)
        return SimpleNamespace(scene=scene[first : first + len(image)])

    monkeypatch.setattr(posterior, "infer", infer)
    return posterior


def as_bytes(pictures: Tensor) -> Tensor:
    return (255 * pictures).round().to(torch.uint8)


def colours(spec: SceneSpec) -> Tensor:
    return torch.tensor(
        [spec.table.colour, spec.background, *(item.colour for item in spec.objects)]
    )


def test_colours_are_found(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    world = FOUND.paint(spec)
    scene = sample(world, 40, generator=torch.Generator().manual_seed(3))
    photos = as_bytes(drawing(world).render(scene))
    found = fit_look(one_who_knows(spec, scene, monkeypatch), photos, drawing)
    assert (colours(found) - colours(world)).abs().max() < 0.02
    assert (colours(spec) - colours(world)).abs().max() > 0.3
    again = drawing(found).render(scene)
    assert (again - photos.float() / 255).abs().max() < 0.05


def test_less_light_is_darker_colours(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = sample(spec, 40, generator=torch.Generator().manual_seed(3))
    look = Appearance.neutral(spec, len(scene))
    dim = replace(
        look, light=0.6 * look.light, headlight=0.6 * look.headlight, ambient=0.6 * look.ambient
    )
    photos = as_bytes(drawing(spec).render(scene, dim))
    found = fit_look(one_who_knows(spec, scene, monkeypatch), photos, drawing)
    shown = [0, 2, 3, 4]  # the background is black in any light
    ratio = colours(found)[shown] / colours(spec)[shown]
    assert (ratio - 0.6).abs().max() < 0.03


def test_what_no_photo_shows_stays_as_it_was(
    spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = FOUND.paint(spec)
    scene = sample(world, 40, generator=torch.Generator().manual_seed(3))
    scene = scene[~(scene.presence & (scene.identity == 2)).any(1)]  # no plates
    photos = as_bytes(drawing(world).render(scene))
    found = fit_look(one_who_knows(spec, scene, monkeypatch), photos, drawing)
    assert found.objects[2].colour == spec.objects[2].colour
    assert found.objects[0].colour == pytest.approx(world.objects[0].colour, abs=0.02)


def test_looks_are_plain_data_of_a_spec(spec: SceneSpec) -> None:
    painted = FOUND.paint(spec)
    assert Look.of(painted, std=0.1, stage=0) == FOUND
    assert Look.model_validate(FOUND.model_dump()) == FOUND
    assert painted.symmetry_orders == spec.symmetry_orders


def test_what_may_be_wrong_is_dreamt_of_less_and_less(spec: SceneSpec) -> None:
    assert [stage_of(part) for part in (0.0, 0.3, 0.34, 0.7, 1.0)] == [0, 0, 1, 2, 2]
    spreads = []
    for stage in range(3):
        colour = dreamt(spec, stage).nuisance.colour
        assert colour is not None
        spreads.append(colour.objects.value)
    assert spreads == sorted(spreads, reverse=True)
    own = dreamt(spec, 2).nuisance
    chosen = spec.model_copy(update={"nuisance": copy.deepcopy(own)})
    assert dreamt(chosen, 0).nuisance == own  # what a spec says of its own stays
