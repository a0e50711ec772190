import itertools
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal
from torch.distributions import VonMises as TorchVonMises

from inference import orders
from inference.anchors import table_anchors
from inference.cell import CellMap, Objects, Proposals
from inference.distributions import PlaneGaussian, VonMises, wrap
from inference.estimate import Estimate
from inference.posterior import Context, Posterior
from renderer.camera import project
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec

Tiny = Callable[..., Posterior]

SPECS = ("objects", "tabletop", "tabletop-fixed")


def pictures(n: int, seed: int = 5) -> Tensor:
    return torch.rand(n, 3, 64, 64, generator=Generator().manual_seed(seed))


def dreams(posterior: Posterior, n: int, seed: int = 11) -> Scene:
    return sample(posterior.spec, n, generator=Generator().manual_seed(seed))


def repeat(value: Any, n: int) -> Any:
    """The Context of one picture as that of n pictures that are all the same."""
    if isinstance(value, Tensor):
        return value.expand(n, *value.shape[1:])
    return type(value)(*(repeat(item, n) for item in value))


def replace(scene: Scene, **changes: Tensor) -> Scene:
    return Scene(**{field.name: getattr(scene, field.name) for field in fields(scene)} | changes)


def with_camera(spec: SceneSpec, **changes: object) -> SceneSpec:
    return spec.model_copy(update={"camera": spec.camera.model_copy(update=changes)})


def blind_to_azimuth(posterior: Posterior) -> Posterior:
    """The same network, its recurrence not told from where the camera looks."""
    with torch.no_grad():
        posterior.cell.initial.weight[:, -2:] = 0
        posterior.cell.describe[0].weight[:, -2:] = 0
    return posterior


# --- the log density ---


def slow_object(posterior: Posterior, proposals: Proposals, found: Objects) -> Tensor:
    """Log density of one object under the proposal of each cell of one picture, `[G]`."""
    identity, order = int(found.identity), posterior.spec.symmetry_orders[int(found.identity)]
    log_class = proposals.class_logits[0].double().log_softmax(-1)[:, identity]
    l00, l10, l11 = proposals.position.scale_tril[0].double().unbind(-1)
    tril = torch.stack([l00, torch.zeros_like(l00), l10, l11], dim=-1).unflatten(-1, (2, 2))
    position = MultivariateNormal(proposals.position.mean[0].double(), scale_tril=tril)
    log_yaw = torch.full_like(log_class, -math.log(2 * math.pi))
    if order:
        loc, concentration = (value[0, :, identity].double() for value in proposals.turned)
        log_yaw = TorchVonMises(loc, concentration).log_prob(order * found.yaw.double())
    return log_class + position.log_prob(found.position.double()) + log_yaw


def slow_log_prob(posterior: Posterior, image: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
    """Equation 2 written out: one picture, one order, one object at a time; azimuth and objects."""
    azimuths, objects = [], []
    target = torch.tensor(posterior.spec.camera.target[:2])
    for b in range(len(scene)):
        context = posterior.encode(image[b : b + 1])
        angle = scene.azimuth[b]
        camera = TorchVonMises(*(value[0].double() for value in context.azimuth))
        moves = posterior.spec.camera.moves
        azimuths.append(camera.log_prob(angle.double()) if moves else torch.zeros(()).double())

        cells = context.proposals.map
        back = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
        totals = []
        for order in itertools.permutations(range(int(scene.count[b]))):
            state = posterior.cell.start(context.summary, angle[None], cells.salience.shape[1])
            total = torch.zeros(()).double()
            for k in order:
                found = Objects(
                    scene.identity[b, k],
                    back @ (scene.position[b, k] - target),
                    scene.yaw[b, k] - angle,
                )
                look = posterior.cell.attend(state, cells)
                total = total + look.presence_logit[0].double().sigmoid().log()
                seen = look.log_weights[0] + slow_object(posterior, context.proposals, found)
                total = total + seen.logsumexp(0)
                one = Objects(*(value[None] for value in found))
                state = posterior.cell.advance(state, cells, one, angle[None])
            if len(order) < scene.slots:
                look = posterior.cell.attend(state, cells)
                total = total + (1 - look.presence_logit[0].double().sigmoid()).log()
            totals.append(total)
        objects.append(torch.stack(totals).logsumexp(0))
    return torch.stack(azimuths), torch.stack(objects)


@pytest.mark.parametrize("name", SPECS)
def test_log_prob_is_its_slow_twin_forward_and_backward(name: str, tiny: Tiny) -> None:
    posterior = tiny(name)
    image, scene = pictures(8), dreams(posterior, 8)
    scene = replace(
        scene,
        position=scene.position.clone().requires_grad_(),
        yaw=scene.yaw.clone().requires_grad_(),
        azimuth=scene.azimuth.clone().requires_grad_(),
    )
    assert len(scene.count.unique()) > 1

    fast = posterior.log_prob(image, scene)
    slow = slow_log_prob(posterior, image, scene)
    assert fast.objects.std() > 0.5  # so that agreement says something
    torch.testing.assert_close(fast.azimuth.double(), slow[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.objects.double(), slow[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.total, fast.azimuth + fast.objects)

    leaves = [*posterior.parameters(), scene.position, scene.yaw, scene.azimuth]
    weights = torch.arange(1.0, 9.0)
    gradients = [
        torch.autograd.grad((weights * total).sum(), leaves, allow_unused=True)
        for total in (fast.total, (slow[0] + slow[1]).float())
    ]
    greatest = max(float(g.abs().max()) for g in gradients[1] if g is not None)
    for leaf, found, expected in zip(leaves, *gradients, strict=True):
        # Of the camera's own network when it does not move, or of a step never taken: none or 0.
        found = torch.zeros_like(leaf) if found is None else found
        expected = torch.zeros_like(leaf) if expected is None else expected
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5 * greatest)


def test_log_prob_does_not_depend_on_the_order_of_the_objects(tiny: Tiny) -> None:
    posterior = tiny()
    image, scene = pictures(12), dreams(posterior, 12)
    expected = posterior.log_prob(image, scene).objects
    for order in itertools.permutations(range(3)):
        index = torch.tensor(order).expand(12, 3)
        # Present objects stay in front.
        behind = ~scene.presence.gather(1, index)
        index = index.gather(1, behind.int().argsort(dim=1, stable=True))
        found = posterior.log_prob(image, scene.permute_slots(index)).objects
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_log_prob_ignores_what_absent_slots_hold(tiny: Tiny) -> None:
    posterior = tiny()
    image, scene = pictures(8), dreams(posterior, 8)
    assert not scene.presence.all()
    expected = posterior.log_prob(image, scene)
    expected.total.sum().backward()
    gradients = [parameter.grad.clone() for parameter in posterior.parameters()]
    posterior.zero_grad()
    absent = ~scene.presence
    for number in (math.nan, math.inf, 1e30):
        found = posterior.log_prob(
            image,
            replace(
                scene,
                identity=scene.identity.masked_fill(absent, -1),
                position=scene.position.masked_fill(absent[..., None], number),
                yaw=scene.yaw.masked_fill(absent, number),
            ),
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        posterior.zero_grad()
        found.total.sum().backward()
        torch.testing.assert_close([p.grad for p in posterior.parameters()], gradients)


def test_log_prob_of_an_object_is_blind_to_turns_that_do_not_show(tiny: Tiny) -> None:
    posterior = tiny("objects")
    orders = posterior.spec.symmetry_orders
    assert set(orders) == {0, 1, 4}
    image = pictures(1).expand(3, -1, -1, -1)
    scene = Scene(
        torch.ones(3, 1, dtype=torch.bool),
        torch.arange(3)[:, None],
        torch.tensor([0.1, -0.05]).expand(3, 1, 2),
        torch.full((3, 1), 0.3),
        torch.zeros(3),
    )

    @torch.no_grad()
    def turned(angle: float) -> Tensor:
        return posterior.log_prob(image, replace(scene, yaw=scene.yaw + angle)).objects

    for class_, order in enumerate(orders):
        change = [float((turned(a) - turned(0))[class_].abs()) for a in (0.3, math.pi / 2)]
        assert (change[0] < 1e-4) == (order == 0)
        assert (change[1] < 1e-4) == (order in (0, 4))
    torch.testing.assert_close(turned(2 * math.pi), turned(0), rtol=0, atol=1e-4)


def test_what_looks_the_same_is_as_probable_from_every_azimuth(tiny: Tiny) -> None:
    spec = with_camera(SceneSpec.load("tabletop"), target=(0.1, -0.05, 0.0))
    posterior = blind_to_azimuth(tiny(spec))
    scene = dreams(posterior, 6)
    context = posterior.encode(pictures(6))
    expected = posterior.log_prob_given(context, scene)

    angle, target = 0.7, torch.tensor([0.1, -0.05])
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    turned = replace(
        scene,
        position=target + (scene.position - target) @ rotation.T,
        yaw=scene.yaw + angle,
        azimuth=scene.azimuth + angle,
    )
    found = posterior.log_prob_given(context, turned)
    torch.testing.assert_close(found.objects, expected.objects, rtol=1e-4, atol=1e-4)
    # It is the objects that turn with the camera: alone they, or it, are another scene.
    for part in (
        replace(turned, azimuth=scene.azimuth),
        replace(scene, azimuth=turned.azimuth),
    ):
        with_objects = scene.count > 0
        change = posterior.log_prob_given(context, part).objects - expected.objects
        assert (change[with_objects].abs() > 1e-2).all()


def test_log_prob_refuses_scenes_of_another_shape(tiny: Tiny) -> None:
    posterior = tiny()
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(2, 3\)"):
        posterior.log_prob(pictures(2), Scene.empty(2, 2))
    with pytest.raises(ValueError, match=r"\(1, 3\), expected \(2, 3\)"):
        posterior.log_prob(pictures(2), Scene.empty(1, 3))


def test_log_prob_with_too_many_orders_is_estimated_from_below(tiny: Tiny) -> None:
    posterior = tiny()
    posterior.config = posterior.config.model_copy(update={"max_orders": 5})
    scene = dreams(posterior, 40)
    scene = scene[scene.count == 3][:1]
    context = posterior.encode(pictures(1))
    n = 2000
    many = Scene(*(value.expand(n, *value.shape[1:]) for value in scene.tensors()))
    estimates = posterior.log_prob_given(
        repeat(context, n), many, generator=Generator().manual_seed(0)
    ).objects
    posterior.config = posterior.config.model_copy(update={"max_orders": 24})
    exact = posterior.log_prob_given(context, scene).objects
    ratio = (estimates - exact).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / math.sqrt(n)
    assert 0 < ratio.std() < 2
    assert estimates.mean() < exact


# --- densities and samples ---


def soften(posterior: Posterior) -> Posterior:
    """Makes every count and place likely enough for a few thousand samples to find it."""
    with torch.no_grad():
        posterior.cell.nothing.bias += 4.0
        posterior.cell.log_inhibition.zero_()
    return posterior


def test_density_of_one_object_integrates_to_one(tiny: Tiny) -> None:
    posterior = soften(tiny("objects", gain=1.0))
    with torch.no_grad():
        context = posterior.encode(pictures(1))
        # Sums of smooth functions over a grid are as good as integrals.
        step, turns = 0.09, 24
        axis = torch.arange(-1.0, 1.0, step)
        grid = torch.cartesian_prod(
            torch.arange(3.0), axis, axis, torch.arange(turns) * 2 * math.pi / turns
        )
        n = len(grid)
        scene = Scene(
            torch.ones(n, 1, dtype=torch.bool),
            grid[:, :1].long(),
            grid[:, None, 1:3],
            grid[:, 3:],
            torch.zeros(n),
        )
        one = posterior.log_prob_given(repeat(context, n), scene).total.double().exp()
        none = posterior.log_prob_given(context, Scene.empty(1, 1)).total.double().exp()
    mass = float(one.sum() * step**2 * 2 * math.pi / turns)
    assert 0.05 < float(none) < 0.95
    assert mass + float(none) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", SPECS)
def test_samples_follow_the_density(name: str, tiny: Tiny, generator: Generator) -> None:
    """For z ~ q and any density p inside q, E[f(z) p(z) / q(z)] is the mean of f under p.

    This fails when samples, the density, or the sum over the objects' orders are wrong in count,
    class, place or turn. p is a simple density of which all means are known.
    """
    posterior = soften(tiny(name, gain=1.0))
    n, slots, classes = 10_000, posterior.slots, len(posterior.spec.objects)
    spread, sharp = 0.25, torch.tensor(0.5)
    image = pictures(1)
    scene = posterior.sample(image, n, generator=generator)
    with torch.no_grad():
        log_q = posterior.log_prob_given(repeat(posterior.encode(image), n), scene).total

    middle = torch.tensor([0.05, -0.1])
    yaws = TorchVonMises(torch.tensor(1.0), sharp)
    each = torch.distributions.Normal(middle, spread).log_prob(scene.position).sum(-1)
    each = each + yaws.log_prob(scene.yaw) - math.log(classes)
    log_p = (each * scene.presence).sum(1) - math.log(slots + 1)
    # A set of objects is as probable as all its orders together.
    log_p = log_p + (scene.count + 1.0).lgamma()
    if posterior.spec.camera.moves:
        log_p = log_p + TorchVonMises(torch.tensor(0.2), sharp).log_prob(scene.azimuth)
    weight = (log_p - log_q).double().exp()

    resultant = float(torch.special.i1(sharp) / torch.special.i0(sharp))
    mean_count = slots / 2

    def summed(value: Tensor) -> Tensor:
        return (value * scene.presence).sum(1)

    x, y = (scene.position - middle).unbind(-1)
    checks: list[tuple[Tensor, float]] = [(torch.ones(n), 1.0)]
    checks += [((scene.count == k).float(), 1 / (slots + 1)) for k in range(slots + 1)]
    checks += [(summed(scene.identity == c), mean_count / classes) for c in range(classes)]
    checks += [(summed(x), 0.0), (summed(y), 0.0), (summed(x * y), 0.0)]
    checks += [(summed(x * x), mean_count * spread**2), (summed(y * y), mean_count * spread**2)]
    checks += [
        (summed((scene.yaw - 1).cos()), mean_count * resultant),
        (summed((scene.yaw - 1).sin()), 0.0),
    ]
    if posterior.spec.camera.moves:
        checks.append(((scene.azimuth - 0.2).cos(), resultant))
        checks.append(((scene.azimuth - 0.2).sin(), 0.0))
    for value, expected in checks:
        term = weight * value.double()
        error = float(term.std()) / math.sqrt(n)
        assert abs(float(term.mean()) - expected) < 4 * error
    assert float(weight.std()) / math.sqrt(n) < 0.1  # enough samples to tell


def test_samples_of_one_picture_lie_side_by_side_and_repeat(tiny: Tiny) -> None:
    posterior = tiny()
    image = pictures(3)
    # The camera's angle tells of which picture a sample is.
    context = posterior.encode(image)
    turn = VonMises(torch.tensor([-0.5, 0.0, 0.5]), torch.full((3,), 1e6))
    posterior.encode = lambda _: context._replace(azimuth=turn)  # type: ignore[method-assign]
    first, second = (
        posterior.sample(image, 4, generator=Generator().manual_seed(1)) for _ in range(2)
    )
    expected = turn.loc.repeat_interleave(4)
    torch.testing.assert_close(first.azimuth, expected, rtol=0, atol=0.01)
    for a, b in zip(first.tensors(), second.tensors(), strict=True):
        assert torch.equal(a, b)
    # Present objects come first.
    assert (first.presence.int().diff(dim=1) <= 0).all()


# --- the estimate ---


@pytest.mark.parametrize("name", SPECS)
def test_estimate_is_consistent(name: str, tiny: Tiny) -> None:
    posterior = tiny(name)
    estimate = posterior.infer(pictures(16))
    counts = estimate.count_probabilities
    torch.testing.assert_close(counts.sum(1), torch.ones(16))
    assert torch.equal(estimate.scene.count, counts.argmax(1))
    assert (estimate.scene.presence.int().diff(dim=1) <= 0).all()
    torch.testing.assert_close(
        estimate.presence_probability, counts.flip(1).cumsum(1).flip(1)[:, 1:]
    )
    classes = estimate.class_probabilities
    torch.testing.assert_close(classes.sum(-1), torch.ones(16, posterior.slots))
    assert torch.equal(estimate.scene.identity, classes.argmax(-1))
    covariance = estimate.position_covariance
    torch.testing.assert_close(covariance, covariance.mT)
    assert (torch.linalg.eigvalsh(covariance) > 0).all()
    order = torch.tensor(posterior.spec.symmetry_orders)[estimate.scene.identity]
    assert torch.equal(estimate.yaw_std.isinf(), order == 0)
    assert (estimate.yaw_std > 0).all()
    least = -math.pi / order.clamp_min(1)
    assert ((estimate.scene.yaw >= least - 1e-5) & (estimate.scene.yaw <= -least + 1e-5)).all()
    assert (estimate.scene.yaw[order == 0] == 0).all()


def tensors_of(estimate: Estimate) -> list[Tensor]:
    values = [getattr(estimate, field.name) for field in fields(estimate)]
    return [*estimate.scene.tensors(), *(v for v in values if isinstance(v, Tensor))]


def test_estimate_of_a_picture_is_the_same_every_time_and_in_every_batch(tiny: Tiny) -> None:
    posterior = tiny()
    image = pictures(5)
    together, again = (tensors_of(posterior.infer(image)) for _ in range(2))
    alone = zip(*(tensors_of(posterior.infer(image[b : b + 1])) for b in range(5)), strict=True)
    for value, repeated, single in zip(together, again, alone, strict=True):
        assert torch.equal(value, repeated)
        torch.testing.assert_close(value, torch.cat(single), rtol=1e-3, atol=1e-5)


def test_a_camera_that_stays_is_known(tiny: Tiny) -> None:
    posterior = tiny(with_camera(SceneSpec.load("tabletop-fixed"), azimuth_deg=(20.0, 20.0)))
    image = pictures(3)
    scene = replace(dreams(posterior, 3), azimuth=torch.full((3,), math.radians(20)))
    assert (posterior.log_prob(image, scene).azimuth == 0).all()
    estimate = posterior.infer(image)
    torch.testing.assert_close(estimate.scene.azimuth, scene.azimuth)
    assert (estimate.azimuth_std == 0).all()
    torch.testing.assert_close(posterior.sample(image).azimuth, scene.azimuth)


def test_azimuths_lie_within_half_a_turn_of_the_middle_of_their_range(
    tiny: Tiny, generator: Generator
) -> None:
    posterior = tiny(with_camera(SceneSpec.load("tabletop"), azimuth_deg=(90.0, 270.0)))
    found = posterior.sample(pictures(1), 300, generator=generator).azimuth
    estimate = posterior.infer(pictures(20))
    for azimuth in (found, estimate.scene.azimuth):
        assert ((azimuth - math.pi).abs() <= math.pi + 1e-5).all()
    assert (found > math.pi).any() and (found < math.pi).any()
    assert (estimate.azimuth_std > 0).all()


@pytest.mark.parametrize("shape", [(2, 3, 64, 80), (2, 1, 64, 64), (3, 64, 64)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...], tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"expected \(3, 64, 64\)"):
        tiny().infer(torch.zeros(shape))


def two_peaks(posterior: Posterior, azimuth: float = 0.0) -> Context:
    """A picture whose cells know of two cups, far apart, the left one a little more salient.

    The left one is turned by 3.0 or -3.1 rad, the right one by 0.5; what they say is sharp.
    """
    cells = posterior.proposals.anchors.shape[0]
    left = torch.arange(cells) < cells // 2
    centre = torch.where(left[:, None], torch.tensor([-0.2, 0.1]), torch.tensor([0.2, 0.0]))
    logits = torch.tensor([5.0, 0.0, 0.0]).expand(cells, 3)
    yaw = torch.where(left, torch.where(torch.arange(cells) % 2 == 0, 3.0, -3.1), 0.5)
    proposals = Proposals(
        CellMap(
            torch.where(left, 0.5, 0.0)[None],
            torch.zeros(1, cells, posterior.config.keys),
            centre[None],
        ),
        logits[None],
        PlaneGaussian(centre[None], torch.tensor([0.02, 0.0, 0.01]).expand(1, cells, 3)),
        VonMises(yaw[None, :, None].expand(1, cells, 3), torch.full((1, cells, 3), 1e5)),
    )
    summary = torch.zeros(1, posterior.config.summary)
    return Context(proposals, summary, VonMises(torch.tensor([azimuth]), torch.full((1,), 1e6)))


def seen(posterior: Posterior, context: Context) -> Estimate:
    posterior.encode = lambda _: context  # type: ignore[method-assign]
    return posterior.infer(torch.zeros(1, 3, 64, 64))


def test_of_two_far_peaks_one_is_found_and_then_the_other(tiny: Tiny) -> None:
    posterior = tiny(gain=1.0)
    estimate = seen(posterior, two_peaks(posterior))
    # Never the average, on which nothing stands.
    torch.testing.assert_close(
        estimate.scene.position[0, :2], torch.tensor([[-0.2, 0.1], [0.2, 0.0]]), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        estimate.position_covariance[0, 0],
        torch.diag(torch.tensor([4e-4, 1e-4])),
        rtol=0,
        atol=1e-6,
    )
    # The average of 3.0 and -3.1 on the circle, and half their distance as its spread.
    middle = (3.0 - 3.1 + 2 * math.pi) / 2
    assert float(wrap(estimate.scene.yaw[0, 0] - middle)) == pytest.approx(0, abs=1e-3)
    assert float(estimate.yaw_std[0, 0]) == pytest.approx((2 * math.pi - 6.1) / 2, rel=0.02)
    assert float(estimate.scene.yaw[0, 1]) == pytest.approx(0.5, abs=1e-4)
    assert float(estimate.yaw_std[0, 1]) == pytest.approx(1e5**-0.5, rel=0.01)


def test_estimate_turns_with_the_camera(tiny: Tiny) -> None:
    posterior = tiny(gain=1.0)
    estimate = seen(posterior, two_peaks(posterior, azimuth=math.pi / 2))
    torch.testing.assert_close(
        estimate.scene.position[0, :2], torch.tensor([[-0.1, -0.2], [0.0, 0.2]]), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        estimate.position_covariance[0, 0],
        torch.diag(torch.tensor([1e-4, 4e-4])),
        rtol=0,
        atol=1e-6,
    )
    assert float(estimate.scene.yaw[0, 1]) == pytest.approx(0.5 + math.pi / 2, abs=1e-4)
    assert float(estimate.azimuth_std[0]) == pytest.approx(1e-3, rel=0.01)


def test_samples_turn_with_the_camera_and_do_not_explain_an_object_twice(
    tiny: Tiny, generator: Generator
) -> None:
    posterior = tiny(gain=1.0)
    context = two_peaks(posterior, azimuth=math.pi / 2)
    posterior.encode = lambda _: context  # type: ignore[method-assign]
    scene = posterior.sample(torch.zeros(1, 3, 64, 64), 400, generator=generator)
    right = scene.position[:, :2, 1] > 0  # [S, 2], the first two objects
    share = right[:, 0].float().mean()
    expected = 1 / (1 + math.exp(0.5))
    assert abs(float(share) - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)
    assert (right[:, 0] != right[:, 1]).float().mean() > 0.99
    cup = right & (scene.identity[:, :2] == 0)
    error = scene.position[:, :2][cup] - torch.tensor([0.0, 0.2])
    assert (error.std(0) - torch.tensor([0.01, 0.02])).abs().max() < 0.002
    assert wrap(scene.yaw[:, :2][cup] - 0.5 - math.pi / 2).abs().max() < 0.03


def test_anchors_are_where_their_cells_look() -> None:
    spec = with_camera(SceneSpec.load("tabletop"), target=(0.1, -0.05, 0.0))
    anchors = table_anchors(spec, 64, 64)
    points = torch.cat([anchors + torch.tensor([0.1, -0.05]), torch.zeros(64, 1)], dim=1)
    pixels = project(spec.camera, torch.zeros(1), points[None], 64, 64)[0]
    y, x = torch.meshgrid(torch.arange(8) * 8.0 + 4, torch.arange(8) * 8.0 + 4, indexing="ij")
    on_table = anchors.abs().amax(1) < 0.5
    assert on_table.sum() > 20
    expected = torch.stack([x, y], dim=-1).flatten(0, 1)
    torch.testing.assert_close(pixels[on_table], expected[on_table], rtol=0, atol=1e-2)


@torch.no_grad()
def test_with_a_tolerance_nothing_is_sharper_than_it(tiny: Tiny) -> None:
    posterior = tiny(gain=8.0)
    sharp, image = posterior.encode(pictures(4)), pictures(4)
    tolerance = 0.02
    blunt = posterior.encode(image, tolerance=tolerance)
    assert float(blunt.proposals.position.scale_tril[..., [0, 2]].min()) >= tolerance
    reach = math.hypot(*posterior.spec.placement.extent)
    assert float(blunt.azimuth.std().min()) >= 0.99 * tolerance / reach
    # Only the spread changes: what is most probable stays where it is.
    assert torch.equal(blunt.proposals.position.mean, sharp.proposals.position.mean)
    assert torch.equal(blunt.azimuth.loc, sharp.azimuth.loc)
    scene = dreams(posterior, 4)
    assert torch.equal(
        posterior.log_prob(image, scene).total,
        posterior.log_prob(image, scene, tolerance=0.0).total,
    )


def in_order(
    counts: Tensor, slots: int, *, limit: int, generator: Generator | None = None
) -> orders.Orders:
    """Each scene's own order only, instead of all."""
    rows = len(counts)
    return orders.Orders(
        torch.arange(rows), torch.arange(slots).expand(rows, -1), torch.zeros(rows)
    )


@pytest.mark.parametrize("name", ["objects", "tabletop"])
def test_a_trace_knows_the_density_of_what_it_drew(
    name: str, tiny: Tiny, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior = tiny(name)
    image = torch.rand(3, 3, 64, 64, generator=generator)
    context = posterior.encode(image)
    trace = posterior.trace(context, 4, generator=generator)
    monkeypatch.setattr("inference.posterior.orders_of", in_order)
    rows = torch.arange(3).repeat_interleave(4)
    expected = posterior.log_prob_given(context.select(rows), trace.latents)
    torch.testing.assert_close(trace.log_q.sum(1), expected.objects, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(trace.log_q_once, expected.azimuth)
    # Behind the step that says "nothing more", nothing is said, and nothing to be scored.
    behind = torch.arange(posterior.slots) > trace.latents.count[:, None]
    assert bool((trace.log_q[behind] == 0).all())
    assert bool((trace.score[behind] == 0).all())
    assert bool((trace.score[~behind] != 0).all())


def test_a_traced_position_moves_with_the_network(tiny: Tiny) -> None:
    """Its path-wise derivative against drawing again with the same random numbers."""
    posterior = tiny("objects")
    image = pictures(2)
    last = posterior.proposals.body[-1]
    assert isinstance(last, torch.nn.Linear)
    direction = torch.randn(last.bias.shape, generator=Generator().manual_seed(1))
    first = 1 + posterior.proposals.keys + posterior.proposals.classes
    kept = torch.zeros_like(direction)
    kept[first : first + 5] = direction[first : first + 5]  # of offset, scale and shear

    def total() -> Tensor:
        trace = posterior.trace(posterior.encode(image), 3, generator=Generator().manual_seed(2))
        return trace.latents.position.square().sum() + trace.latents.position.sum()

    (gradient,) = torch.autograd.grad(total(), last.bias)
    step = 1e-2
    with torch.no_grad():
        last.bias += step * kept
        up = total()
        last.bias -= 2 * step * kept
        down = total()
    expected = float(up - down) / (2 * step)
    assert float((gradient * kept).sum()) == pytest.approx(expected, rel=0.02)
    assert abs(expected) > 0.01


def test_only_networks_that_were_told_so_claim_an_azimuth_to_a_thousandth_of_a_degree(
    tiny: Tiny,
) -> None:
    """Weights of before mean what they meant; the same ones may be allowed to say more."""
    before = tiny()
    with torch.no_grad():
        before.camera[-1].bias[2] = 30.0  # type: ignore[union-attr, index]
    sharp = Posterior(before.spec, before.config.model_copy(update={"sharpest": 22.0}))
    sharp.load_state_dict(before.state_dict())
    image = torch.rand(3, 3, 64, 64)
    told = [math.degrees(float(one.infer(image).azimuth_std.max())) for one in (before, sharp)]
    assert told == pytest.approx([0.052, 0.00096], rel=0.02)
