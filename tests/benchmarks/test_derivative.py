import torch

from benchmarks.crowds import Crowd
from benchmarks.derivative import WholePictures, gradient, gradient_of_noise, ways
from renderer import Scene, SceneSpec, open_renderer
from renderer.appearance import Appearance
from renderer.backend import WindowRenderer
from renderer.prior import sample


def test_gradient_of_a_crowd() -> None:
    spec = Crowd(2).spec()
    scene = sample(spec, 3, generator=torch.Generator().manual_seed(0))
    assert scene.count.tolist() == [2, 2, 2]
    renderer = FlatRenderer(spec)
    upstream = torch.ones(3, 3, 4, 4)
    position, yaw = gradient(renderer, scene, upstream, scheme="central", azimuth=False)
    # The picture is x of the first object everywhere, and 48 values are summed.
    torch.testing.assert_close(position[:, 0, 0], torch.full((3,), 48.0))
    assert not position[..., 1].any() and not yaw.any()
    *_, azimuth = gradient(renderer, scene, upstream, scheme="forward", azimuth=True)
    assert azimuth.shape == (3,)
    assert not scene.position.requires_grad
    assert list(ways(renderer)) == ["pictures"]


def test_both_ways_to_the_gradient_lead_to_the_same() -> None:
    """Else one would not be the other's price."""
    spec = Crowd(2).spec()
    renderer = open_renderer(spec, height=24, width=24, backend="raycast", supersample=2)
    scene = sample(spec, 2, generator=torch.Generator().manual_seed(0))
    found = {
        way: gradient_of_noise(view, scene, scheme="forward", azimuth=True, seed=0)()
        for way, view in ways(renderer).items()
    }
    assert list(found) == ["windows", "pictures"]
    assert not isinstance(WholePictures(renderer), WindowRenderer)
    for by_windows, by_pictures in zip(*found.values(), strict=True):
        assert by_pictures.any()
        scale = float(by_pictures.abs().max())
        torch.testing.assert_close(by_windows, by_pictures, rtol=0, atol=0.05 * scale)


def test_a_crowd_is_of_the_tabletops_own_objects() -> None:
    tabletop = SceneSpec.load("tabletop")
    same, smaller = Crowd(3).spec(), Crowd(4, small=True).spec()
    assert same.objects == tabletop.objects
    assert same.placement == tabletop.placement
    assert [item.scale for item in smaller.objects] == [0.6] * len(tabletop.objects)
    assert sample(smaller, 4).count.tolist() == [4] * 4


class FlatRenderer:
    """A picture has one colour: where the first object stands."""

    name = "flat"
    height = width = 4
    device = torch.device("cpu")

    def __init__(self, spec: SceneSpec) -> None:
        self.spec = spec

    def render(self, scene: Scene, appearance: Appearance | None = None) -> torch.Tensor:
        return scene.position[:, 0, 0, None, None, None].expand(-1, 3, 4, 4).clone()

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> torch.Tensor:
        raise NotImplementedError
