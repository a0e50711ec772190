import dataclasses
import functools
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from renderer import differentiable
from renderer.appearance import Appearance
from renderer.backend import BackendError, Renderer, open_renderer
from renderer.camera import project
from renderer.differences import Scheme, Steps
from renderer.differentiable import differentiable_render
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec

SCHEMES: tuple[Scheme, ...] = ("central", "forward", "random")
FIELDS = ("position", "yaw", "azimuth")
Loss = Callable[[Tensor], Tensor]


class Blobs:
    """Objects as Gaussian blobs: float64, smooth, so torch knows the gradient."""

    name, height, width, device = "blobs", 16, 16, torch.device("cpu")

    def __init__(self) -> None:
        self.spec = SceneSpec.load("tabletop")  # cup, pan, and a plate that shows no turn

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        points = F.pad(scene.position, (0, 1))
        at = project(self.spec.camera, scene.azimuth, points, self.height, self.width)
        grid = torch.arange(self.height, dtype=at.dtype) + 0.5
        near_x = (-((grid - at[..., :1]) ** 2) / 18).exp()  # [B, K, W]
        near_y = (-((grid - at[..., 1:]) ** 2) / 18).exp()  # [B, K, H]
        turns = (torch.tensor(self.spec.symmetry_orders) != 0)[
            scene.identity.where(scene.presence, 0)
        ]
        phase = torch.where(turns, scene.yaw, 0.0) - scene.azimuth[:, None]
        colour = 1 + 0.5 * torch.stack([phase.sin(), phase.cos(), (2 * phase).sin()], dim=-1)
        colour = torch.where(scene.presence[..., None], colour, 0.0)
        return torch.einsum("bkc,bky,bkx->bcyx", colour, near_y, near_x)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Counting:
    """Another renderer that remembers how many scenes each call asked for."""

    def __init__(self, inner: Renderer) -> None:
        self.inner, self.spec, self.name = inner, inner.spec, inner.name
        self.height, self.width, self.device = inner.height, inner.width, inner.device
        self.calls: list[int] = []

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        self.calls.append(len(scene))
        return self.inner.render(scene, appearance)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        self.calls.append(len(scene))
        return self.inner.render_bytes(scene, appearance)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return Blobs()


def scenes(spec: SceneSpec, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Scene:
    """Scenes of the prior; for every other one, its absent slots hold nonsense."""
    drawn = sample(spec, n, generator=torch.Generator().manual_seed(seed))
    nonsense = ~drawn.presence & (torch.arange(n) % 2 == 0)[:, None]
    return Scene(
        drawn.presence,
        drawn.identity.masked_fill(nonsense, 99),
        drawn.position.to(dtype).masked_fill(nonsense[..., None], 1e3),
        drawn.yaw.to(dtype).masked_fill(nonsense, 1e3),
        drawn.azimuth.to(dtype),
    )


def tracked(scene: Scene, names: tuple[str, ...] = FIELDS) -> Scene:
    """The same scenes, with gradients wanted to the fields `names`."""
    leaves = {name: getattr(scene, name).detach().clone().requires_grad_() for name in names}
    return dataclasses.replace(scene, **leaves)


def weighted(spec_size: int, batch: int) -> Loss:
    """A loss that treats every pixel differently."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(batch, 3, spec_size, spec_size, generator=generator, dtype=torch.float64)
    return lambda picture: (weight * picture).sum() + 0.5 * (picture**2).sum()


def gradients(loss: Tensor, scene: Scene) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [getattr(scene, name) for name in FIELDS]))


def joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


# --- Against torch's own derivative of a smooth picture.


def test_picture_is_the_renderers(blobs: Blobs) -> None:
    scene = scenes(blobs.spec, 4)
    expected = blobs.render(scene)
    assert torch.equal(differentiable_render(blobs, scene), expected)
    assert not differentiable_render(blobs, scene).requires_grad
    assert torch.equal(differentiable_render(blobs, tracked(scene)), expected)
    with torch.no_grad():
        assert not differentiable_render(blobs, tracked(scene)).requires_grad


def test_gradient_is_the_analytic_one(blobs: Blobs) -> None:
    scene = tracked(scenes(blobs.spec, 32))
    loss = weighted(16, 32)
    expected = gradients(loss(blobs.render(scene)), scene)
    picture = differentiable_render(blobs, scene, step=1e-5, scheme="central")
    found = gradients(loss(picture), scene)
    for name, one, other in zip(FIELDS, found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(("scheme", "order"), [("central", 2), ("forward", 1), ("random", 1)])
@pytest.mark.parametrize("field", range(3), ids=FIELDS)
def test_error_falls_with_the_step_as_it_should(
    blobs: Blobs, scheme: Scheme, order: int, field: int
) -> None:
    scene = tracked(scenes(blobs.spec, 16))
    loss = weighted(16, 16)
    expected = gradients(loss(blobs.render(scene)), scene)[field]
    errors = []
    for step in (0.02, 0.01, 0.005, 0.0025):
        found = gradients(
            loss(
                differentiable_render(
                    blobs,
                    scene,
                    step=Steps(step, step, step),
                    scheme=scheme,
                    generator=torch.Generator().manual_seed(0),
                )
            ),
            scene,
        )[field]
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors[-1] < (1e-3 if order == 2 else 2e-2)
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


def test_absent_objects_and_unseen_turns_have_gradient_zero(blobs: Blobs) -> None:
    scene = tracked(scenes(blobs.spec, 32))
    loss = weighted(16, 32)(differentiable_render(blobs, scene))
    position, yaw, azimuth = gradients(loss, scene)
    assert (position[~scene.presence] == 0).all()
    assert (yaw[~scene.presence] == 0).all()
    plate = scene.presence & (scene.identity == blobs.spec.class_names.index("plate"))
    assert plate.any()
    assert (yaw[plate] == 0).all()
    assert (position[scene.presence] != 0).all()
    assert (yaw[scene.presence & ~plate] != 0).all()
    assert (azimuth[scene.count == 0] == 0).all()  # nothing stands there that would move
    assert (azimuth[scene.count > 0] != 0).all()


# --- What is drawn, and when.


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "names", [FIELDS, ("position",), ("yaw",), ("azimuth",), ("position", "azimuth")]
)
def test_only_needed_freedoms_are_drawn(
    blobs: Blobs, names: tuple[str, ...], scheme: Scheme
) -> None:
    scene = tracked(scenes(blobs.spec, 12), names)
    counting = Counting(blobs)
    picture = differentiable_render(counting, scene, scheme=scheme)
    assert counting.calls == [12]
    picture.sum().backward()
    objects = int(scene.presence.sum())
    plates = int((scene.presence & (scene.identity == 2)).sum())
    freedoms = {"position": 2 * objects, "yaw": objects - plates, "azimuth": 12}
    pictures = sum(freedoms[name] for name in names) * (2 if scheme == "central" else 1)
    assert counting.calls == [12, pictures]  # all of them in one call
    for name in FIELDS:
        assert (getattr(scene, name).grad is not None) == (name in names)


def test_scenes_that_the_loss_leaves_out_are_not_drawn(blobs: Blobs) -> None:
    drawn = scenes(blobs.spec, 8)
    scene, alone = tracked(drawn), tracked(drawn[3:4])
    everything, one = Counting(blobs), Counting(blobs)
    differentiable_render(everything, scene)[3].square().sum().backward()
    differentiable_render(one, alone).square().sum().backward()
    assert everything.calls[1:] == one.calls[1:]
    for name in FIELDS:
        gradient, expected = getattr(scene, name).grad, getattr(alone, name).grad
        assert torch.equal(gradient[3:4], expected)
        assert not gradient[[0, 1, 2, 4, 5, 6, 7]].any()


def test_small_chunks_give_the_same(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tracked(scenes(blobs.spec, 16))
    expected = gradients(differentiable_render(blobs, scene).square().sum(), scene)
    monkeypatch.setattr(
        differentiable, "CHUNK_VALUES", dict.fromkeys(differentiable.CHUNK_VALUES, 10 * 3 * 16 * 16)
    )
    monkeypatch.setattr(differentiable, "CHUNK_MULTIPLE", 4)
    counting = Counting(blobs)
    found = gradients(differentiable_render(counting, scene).square().sum(), scene)
    assert set(counting.calls[1:-1]) == {8}
    assert torch.allclose(joined(found), joined(expected))


def test_going_back_twice_gives_the_same_random_gradient(blobs: Blobs) -> None:
    scene = tracked(scenes(blobs.spec, 8))
    loss = differentiable_render(blobs, scene, scheme="random").square().sum()
    fields = [getattr(scene, name) for name in FIELDS]
    first = torch.autograd.grad(loss, fields, retain_graph=True)
    second = torch.autograd.grad(loss, fields)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_no_second_derivative(blobs: Blobs) -> None:
    scene = tracked(scenes(blobs.spec, 4))
    loss = differentiable_render(blobs, scene).square().sum()
    (gradient,) = torch.autograd.grad(loss, [scene.position], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_number_scales_all_default_steps(blobs: Blobs) -> None:
    scene = tracked(scenes(blobs.spec, 8))
    default = Steps.for_size(blobs.spec, blobs.height)
    one, same = (
        gradients(differentiable_render(blobs, scene, step=step).square().sum(), scene)
        for step in (default.position / 3, default.scaled(1 / 3))
    )
    assert torch.allclose(joined(one), joined(same))


@pytest.mark.parametrize("step", [0.0, -0.01, float("nan")])
def test_impossible_steps_are_refused(blobs: Blobs, step: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        differentiable_render(blobs, tracked(scenes(blobs.spec, 1)), step=step)


# --- With real pictures: 8 bits, few samples a pixel.


@functools.cache
def real_renderer(backend: str, name: str, size: int, supersample: int = 2) -> Renderer:
    backend, _, device = backend.partition("-")
    form = {"height": size, "width": size, "supersample": supersample}
    try:
        return open_renderer(SceneSpec.load(name), backend=backend, device=device or "cpu", **form)
    except BackendError as error:
        pytest.skip(str(error))


class Fine:
    """Pictures averaged from ones 16 times as high and wide, to far more than 8 bits."""

    name, device = "fine", torch.device("cpu")

    def __init__(self, spec: SceneSpec, size: int) -> None:
        self.spec, self.height, self.width = spec, size, size
        self.inner = real_renderer("opengl", spec.name, 8 * size)

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        pictures = [self.inner.render(scene[b]) for b in range(len(scene))]  # large: one at a time
        return F.avg_pool2d(torch.cat(pictures), 8)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        raise NotImplementedError

    def close(self) -> None:
        pass


def blurred_error(target: Tensor, sigma: float) -> Loss:
    """Half the squared error of pictures, blurred with a standard deviation of `sigma` px."""
    reach = int(3 * sigma + 1)
    kernel = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1).to(target.device)

    def per_scene(picture: Tensor) -> Tensor:
        error = F.conv2d(picture - target, kernel, padding=(0, reach), groups=3)
        error = F.conv2d(error, kernel.mT, padding=(reach, 0), groups=3)
        return 0.5 * error.square().sum(dim=(1, 2, 3))

    return per_scene


def displaced(scene: Scene, seed: int) -> Scene:
    """Everything a little elsewhere: about 3 cm, 0.3 rad and 0.05 rad."""
    generator = torch.Generator().manual_seed(seed)
    position, yaw, azimuth = (
        value + scale * torch.randn(value.shape, generator=generator)
        for value, scale in ((scene.position, 0.03), (scene.yaw, 0.3), (scene.azimuth, 0.05))
    )
    return dataclasses.replace(scene, position=position, yaw=yaw, azimuth=azimuth)


@torch.no_grad()
def loss_differences(renderer: Renderer, scene: Scene, loss: Loss, steps: Steps) -> list[Tensor]:
    """The slow twin: the loss itself at both sides of every freedom, one after the other."""
    found = [torch.zeros_like(getattr(scene, name)) for name in FIELDS]
    for name, gradient in zip(FIELDS, found, strict=True):
        step = getattr(steps, name)
        for index in range(gradient[0].numel()):
            sides = []
            for sign in (1, -1):
                value = getattr(scene, name).clone()
                value.view(len(scene), -1)[:, index] += sign * step
                moved = dataclasses.replace(scene, **{name: value})
                sides.append(loss(renderer.render(moved)))
            gradient.view(len(scene), -1)[:, index] = (sides[0] - sides[1]) / (2 * step)
    return found


def away_from_truth(spec: SceneSpec, n: int) -> tuple[Scene, Scene]:
    """True scenes with something in them, and the same displaced, with gradients wanted."""
    truth = sample(spec, 4 * n, generator=torch.Generator().manual_seed(5))
    truth = truth[truth.count > 0][:n]
    return truth, tracked(displaced(truth, seed=6))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def cosine(found: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(found.flatten(), expected.flatten(), dim=0))


@pytest.mark.parametrize(
    ("backend", "name", "size"),
    [
        ("opengl", "tabletop", 64),
        ("opengl", "objects", 48),
        ("raycast", "objects", 48),
        ("raycast-cuda", "tabletop", 64),
    ],
    indirect=["backend"],
)
def test_gradient_follows_the_loss(backend: str, name: str, size: int) -> None:
    renderer = real_renderer(backend, name, size)
    truth, scene = away_from_truth(renderer.spec, 8)
    loss = blurred_error(renderer.render(truth), sigma=2.0)
    picture = differentiable_render(renderer, scene, scheme="central")
    found = gradients(loss(picture).sum(), scene)
    default = Steps.for_size(renderer.spec, size)
    for factor in (0.67, 1.0, 1.5):
        expected = loss_differences(renderer, scene, loss, default.scaled(factor))
        for field, one, other in zip(FIELDS, found, expected, strict=True):
            # The loss also squares each picture's own jumps, which the gradient does not; beside
            # the little that a thin handle's turn changes these are large. The next test
            # therefore holds the turns of crockery against finely drawn pictures.
            if field == "yaw" and name == "tabletop":
                continue
            worst = 0.5 if field == "yaw" else 0.15
            assert relative_error(one, other) < worst, (factor, field)
            assert cosine(one, other) > 1 - worst / 3, (factor, field)


def test_default_steps_see_what_finely_drawn_pictures_see() -> None:
    renderer = real_renderer("opengl", "tabletop", 64)
    fine = Fine(renderer.spec, 64)
    truth, scene = away_from_truth(renderer.spec, 12)
    loss = blurred_error(fine.render(truth), sigma=2.0)
    default = Steps.for_size(renderer.spec, 64)

    def gradient(drawn: Renderer, factor: float, scheme: Scheme) -> list[Tensor]:
        step = default.scaled(factor)
        return gradients(
            loss(differentiable_render(drawn, scene, step=step, scheme=scheme)).sum(), scene
        )

    expected = gradient(fine, 0.25, "central")
    bounds: dict[Scheme, tuple[float, ...]] = {
        "central": (0.15, 0.5, 0.1),
        "forward": (0.35, 0.9, 0.2),
    }
    for scheme, worst in bounds.items():
        found = gradient(renderer, 1.0, scheme)
        short = gradient(renderer, 1e-4 / default.position, scheme)  # the paper's
        for index, field in enumerate(FIELDS):
            error = relative_error(found[index], expected[index])
            assert error < worst[index], (scheme, field)
            # Far too short for 8 bits: noise.
            assert relative_error(short[index], expected[index]) > 3 * error, (scheme, field)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("backend", "name"),
    [("opengl", "tabletop-fixed"), ("raycast", "objects"), ("raycast-cuda", "tabletop-fixed")],
    indirect=["backend"],
)
def test_a_displaced_object_walks_back(backend: str, name: str, scheme: Scheme) -> None:
    renderer = real_renderer(backend, name, 48)
    identity = torch.tensor([[0], [1], [2], [0]])
    home = torch.tensor([[[0.1, -0.1]], [[-0.1, 0.05]], [[0.0, 0.2]], [[-0.2, -0.2]]])
    truth = Scene(
        torch.ones(4, 1, dtype=torch.bool), identity, home, torch.full((4, 1), 0.5), torch.zeros(4)
    )
    loss = blurred_error(renderer.render(truth), sigma=2.0)
    # Each 2 cm away, to four sides.
    position = home + torch.tensor(
        [[[0.014, 0.014]], [[-0.02, 0.0]], [[0, -0.02]], [[0.014, -0.014]]]
    )
    before = loss(renderer.render(dataclasses.replace(truth, position=position)))
    generator = torch.Generator().manual_seed(0)
    for iteration in range(16):
        scene = tracked(dataclasses.replace(truth, position=position), ("position",))
        picture = differentiable_render(renderer, scene, scheme=scheme, generator=generator)
        (gradient,) = torch.autograd.grad(loss(picture).sum(), [scene.position])
        # Each scene by itself, 4 mm at first and then less.
        way = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        position = position - 0.004 * 0.9**iteration * way
    after = loss(renderer.render(dataclasses.replace(truth, position=position)))
    assert ((position - home).norm(dim=-1) < 0.008).all()
    assert (after < 0.4 * before).all()
