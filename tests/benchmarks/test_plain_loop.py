import pytest
import torch

from benchmarks.plain_loop import PlainLoop
from renderer import SceneSpec, open_renderer
from renderer.prior import sample


def test_plain_loop_draws_what_the_backend_draws(
    has_opengl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its time would be no reference for the backend's; but for detail that does not show."""
    if not has_opengl:
        pytest.skip("no headless OpenGL here")
    monkeypatch.setattr("renderer.opengl.pixel_tolerance", lambda spec, height: 0.0)
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 6, generator=torch.Generator().manual_seed(1))
    assert scene.count.unique().numel() > 1
    loop = PlainLoop(spec, height=48, width=48, samples=1)
    theirs = torch.from_numpy(loop.render_bytes(scene))
    ours = open_renderer(spec, height=48, width=48, backend="opengl").render_bytes(scene)
    loop.close()
    torch.testing.assert_close(theirs, ours, atol=1, rtol=0)


def test_plain_loop_smooths_edges(has_opengl: bool) -> None:
    if not has_opengl:
        pytest.skip("no headless OpenGL here")
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 4, generator=torch.Generator().manual_seed(1))
    fine = open_renderer(spec, height=48, width=48, backend="opengl", supersample=8)
    truth = fine.render(scene).permute(0, 2, 3, 1) * 255
    errors = []
    for samples in (1, 4):
        loop = PlainLoop(spec, height=48, width=48, samples=samples)
        errors.append(float((torch.from_numpy(loop.render_bytes(scene)) - truth).abs().mean()))
        loop.close()
    assert errors[1] < 0.7 * errors[0]
