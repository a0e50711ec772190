from itertools import product

import pytest
import torch

import benchmarks.stages
from benchmarks.crowds import Crowd
from benchmarks.part import Settings
from benchmarks.stages import PIXEL, WHOLE, experiments, stages
from renderer import open_renderer
from renderer.prior import sample


def test_stages_find_what_a_picture_is_made_of() -> None:
    truth = {
        "python": 1.0,
        "calls": 2.0,
        "geometry": 4.0,
        "background": 8.0,
        "objects": 16.0,
        "hand_over": 32.0,
    }

    def seconds(size: str, objects: bool, drawn: bool) -> float:
        total = truth["python"] + truth["hand_over"] * (size == WHOLE)
        if drawn:
            total += truth["calls"] + truth["geometry"] * objects
            total += (size == WHOLE) * (truth["background"] + truth["objects"] * objects)
        return total

    ways = product((WHOLE, PIXEL), (True, False), (True, False))
    assert stages({way: seconds(*way) for way in ways}) == truth


def test_refuses_to_leave_out_what_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a backend that draws by another function would be all Python in the profile."""
    spec = Crowd(1).spec()
    scene = sample(spec, 2, generator=torch.Generator().manual_seed(0))
    whole, pixel = (
        open_renderer(spec, height=size, width=size, backend="raycast") for size in (8, 1)
    )
    assert len(experiments(whole, pixel, scene, Settings(rounds=1))) == 8
    before = whole.render(scene)
    monkeypatch.setitem(benchmarks.stages.DRAWING, "raycast", ((torch, "lobpcg"),))
    with pytest.raises(RuntimeError, match=r"raycast does not draw by torch\.lobpcg any more"):
        experiments(whole, pixel, scene, Settings(rounds=1))
    # What was left out is back.
    assert torch.equal(whole.render(scene), before)
