"""Scenes as `evaluate` draws them."""

import pytest
import torch

from renderer.backend import open_renderer
from renderer.spec import SceneSpec
from training.inferred import as_jpegs, draw


def test_photos_written_as_jpeg_are_the_same_photos() -> None:
    spec = SceneSpec.load("tabletop")
    photos = {}
    for name, world in (("as they are", spec), ("as JPEG", as_jpegs(spec))):
        renderer = open_renderer(world, height=64, width=64, backend="raycast")
        generator = torch.Generator().manual_seed(3)
        ((_, photos[name]),) = draw(renderer, 4, generator=generator, nuisance=True, spec=world)
        renderer.close()
    difference = (photos["as they are"].int() - photos["as JPEG"].int()).abs().float()
    assert 0.5 < float(difference.mean()) < 8  # grey levels


def test_jpeg_is_of_photos() -> None:
    from inference.checkpoint import load_checkpoint
    from training.evaluate import evaluate

    with pytest.raises(ValueError, match="give --nuisance with it"):
        evaluate(load_checkpoint("checkpoints/tabletop"), scenes=1, seed=0, jpeg=True)
