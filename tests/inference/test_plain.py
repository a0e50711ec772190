import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.distributions import Gaussian, wrap
from inference.elbo import elbo_terms
from inference.estimators import nvil
from inference.likelihood import Likelihood
from inference.plain import PlainConfig, PlainContext, PlainPosterior, Step
from inference.prior import StepPrior
from inference.wakesleep import sleep_loss
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec

Plain = Callable[..., PlainPosterior]

SPECS = ("objects", "tabletop", "tabletop-fixed")


load = cache(SceneSpec.load)


@pytest.fixture
def plain() -> Plain:
    """A function that makes a small plain network with random weights.

    `gain` scales the weights behind the encoder, so that what they say differs between pictures.
    """

    def make(name: str = "tabletop", *, gain: float = 4.0, **config: Any) -> PlainPosterior:
        sizes = {"channels": 8, "summary": 16, "hidden": 16, "blocks": 1} | config
        with torch.random.fork_rng():
            torch.manual_seed(0)
            posterior = PlainPosterior(load(name), PlainConfig(**sizes))
        with torch.no_grad():
            for part in (posterior.recur, posterior.head, posterior.camera):
                for parameter in part.parameters() if part is not None else ():
                    parameter.mul_(gain)
        return posterior.eval()

    return make


def pictures(n: int, seed: int = 5) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=Generator().manual_seed(seed))


def dreams(posterior: PlainPosterior, n: int, seed: int = 11) -> Scene:
    return sample(posterior.spec, n, generator=Generator().manual_seed(seed))


def replace(scene: Scene, **changes: Tensor) -> Scene:
    return Scene(**{field.name: getattr(scene, field.name) for field in fields(scene)} | changes)


def slow_steps(posterior: PlainPosterior, context: PlainContext, scene: Scene) -> list[float]:
    """Equation 2 and appendix H.4 written out for one scene: the log density of each step."""
    spec, (count,) = posterior.spec, scene.count.tolist()
    least, greatest = spec.camera.azimuth_range
    weight, bias = posterior.head.weight.double(), posterior.head.bias.double()
    recur = copy.deepcopy(posterior.recur).double()
    hidden = torch.zeros(posterior.config.hidden).double()
    previous = [0.0] * (1 + len(spec.objects) + 3)
    steps = []
    for k in range(min(count + 1, scene.slots)):
        angle = float(scene.azimuth[0]) - (least + greatest) / 2
        x = torch.cat([context.summary[0].double(), torch.tensor([angle, *previous]).double()])
        hidden = torch.tanh(
            recur.weight_ih @ x + recur.bias_ih + recur.weight_hh @ hidden + recur.bias_hh
        )
        presence, classes, mean, log_std = (weight @ hidden + bias).split(
            [1, len(spec.objects), 3, 3]
        )
        on = float(torch.sigmoid(presence))
        if k == count:
            steps.append(math.log(1 - on))
            break
        unit = torch.tensor([spec.placement.extent[0] / 2, spec.placement.extent[1] / 2, 1.0])
        finest = torch.tensor([5e-4 + context.tolerance, 5e-4 + context.tolerance, 1e-3])
        pose = torch.tensor([*scene.position[0, k].tolist(), float(scene.yaw[0, k])])
        density = Normal(unit * mean, finest + unit * log_std.clamp(-8, 1).exp()).log_prob(pose)
        identity = int(scene.identity[0, k])
        steps.append(
            math.log(on) + float(classes.softmax(0)[identity].log()) + float(density.sum())
        )
        one_hot = [float(c == identity) for c in range(len(spec.objects))]
        previous = [1.0, *one_hot, *(pose / unit).tolist()]
    return steps


# --- the log density ---


@torch.no_grad()
@pytest.mark.parametrize("name", SPECS)
def test_log_prob_is_the_sum_written_out(name: str, plain: Plain) -> None:
    posterior = plain(name)
    image, scene = pictures(8), dreams(posterior, 8)
    assert len(scene.count.unique()) > 1
    found = posterior.log_prob(image, scene, tolerance=0.01)
    context = posterior.encode(image, tolerance=0.01)
    for b in range(8):
        one = context.select(torch.tensor([b]))
        expected = sum(slow_steps(posterior, one, scene[b]))
        assert float(found.objects[b]) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    if posterior.spec.camera.moves:
        torch.testing.assert_close(found.azimuth, Normal(*context.azimuth).log_prob(scene.azimuth))
    else:
        assert (found.azimuth == 0).all()
    assert found.objects.std() > 0.5  # so that agreement says something


@torch.no_grad()
def test_in_any_order_is_the_sum_over_the_orders_of_the_given_one(plain: Plain) -> None:
    given, free = plain(order="given"), plain(order="any")
    image, scene = pictures(12), dreams(given, 12)
    context = given.encode(image)
    in_any = free.log_prob_given(context, scene).objects
    for b in range(12):
        count, one = int(scene.count[b]), context.select(torch.tensor([b]))
        values = []
        for order in itertools.permutations(range(count)):
            permuted = scene[b].permute_slots([*order, *range(count, 3)])
            values.append(given.log_prob_given(one, permuted).objects)
            torch.testing.assert_close(
                free.log_prob_given(one, permuted).objects, in_any[b : b + 1]
            )
        torch.testing.assert_close(in_any[b], torch.cat(values).logsumexp(0))
        if count == 3:
            assert torch.cat(values).std() > 0.1  # the order matters to the list


@pytest.mark.parametrize("order", ["given", "any"])
def test_absent_slots_reach_no_gradient(order: str, plain: Plain) -> None:
    posterior = plain(order=order)
    image, scene = pictures(8), dreams(posterior, 8)
    absent = ~scene.presence
    assert absent.any()
    expected = posterior.log_prob(image, scene)
    gradients = torch.autograd.grad(expected.total.sum(), list(posterior.parameters()))
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
        again = torch.autograd.grad(found.total.sum(), list(posterior.parameters()))
        torch.testing.assert_close(again, gradients)


@torch.no_grad()
def test_a_yaw_is_a_number_like_any_other(plain: Plain) -> None:
    """The naive part: a turn that cannot be seen, even a whole one, is another yaw."""
    posterior = plain("objects")
    sphere = Scene(
        torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([[posterior.spec.symmetry_orders.index(0)]]),
        torch.zeros(1, 1, 2),
        torch.full((1, 1), 0.3),
        torch.zeros(1),
    )
    image = pictures(1)
    turned = replace(sphere, yaw=sphere.yaw + 2 * math.pi)
    difference = posterior.log_prob(image, turned).total - posterior.log_prob(image, sphere).total
    assert float(difference.abs()) > 1


def test_an_untrained_network_thinks_everything_possible(plain: Plain) -> None:
    posterior = plain(gain=1.0, summary=256, hidden=256)
    with torch.no_grad():
        drawn = posterior.trace(posterior.encode(pictures(64)), 50, generator=Generator())
    scene = drawn.latents
    extent = torch.tensor(posterior.spec.placement.extent)
    spread = scene.position.flatten(0, 1).std(0) / extent
    assert ((spread > 0.4) & (spread < 0.6)).all()
    assert 0.9 < float(scene.yaw.std()) < 1.1
    assert 0.45 < float(scene.presence[:, 0].float().mean()) < 0.55
    shares = scene.identity.flatten().bincount(minlength=3) / scene.identity.numel()
    assert ((shares - 1 / 3).abs() < 0.05).all()
    least, greatest = posterior.spec.camera.azimuth_range
    assert 0.4 < float(scene.azimuth.std()) / ((greatest - least) / 2) < 0.6


@torch.no_grad()
def test_with_a_tolerance_nothing_is_sharper_than_it(plain: Plain) -> None:
    posterior, image = plain(gain=30.0), pictures(4)
    context, tolerance = posterior.encode(image, tolerance=0.02), 0.02
    reach = math.hypot(*posterior.spec.placement.extent)
    assert float(context.azimuth.std.min()) >= tolerance / reach
    scene = dreams(posterior, 4)
    limit = -2 * math.log(tolerance * math.sqrt(2 * math.pi))  # of a density at its very peak
    limit += -math.log(1e-3 * math.sqrt(2 * math.pi))
    steps = posterior.log_prob_given(context, scene).objects
    assert (steps <= scene.count * limit + 1e-3).all()
    rows = torch.tensor([2, 2, 0])
    assert context.select(rows).tolerance == tolerance
    assert torch.equal(context.select(rows).azimuth.mean, context.azimuth.mean[rows])


@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (2, 1, 32, 32), (3, 32, 32)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...], plain: Plain) -> None:
    with pytest.raises(ValueError, match=r"expected \(3, 32, 32\)"):
        plain().infer(torch.zeros(shape))


def test_scenes_and_cameras_of_another_shape_are_refused(plain: Plain) -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(2, 3\)"):
        plain().log_prob(pictures(2), Scene.empty(2, 2))
    with pytest.raises(ValueError, match="does not fit the camera's aspect"):
        plain(height=32, width=64)
    with pytest.raises(ValueError, match="multiple of 16"):
        PlainConfig(height=40)


# --- draws ---


@torch.no_grad()
@pytest.mark.parametrize("name", SPECS)
def test_a_trace_knows_how_probable_it_was(name: str, plain: Plain, generator: Generator) -> None:
    """Step by step against the sum written out, and as a whole, of the list as it was drawn."""
    posterior = plain(name)
    context = posterior.encode(pictures(4))
    trace = posterior.trace(context, 3, generator=generator)
    many = context.select(torch.arange(4).repeat_interleave(3))
    expected = posterior.log_prob_given(many, trace.latents)
    torch.testing.assert_close(trace.log_q.sum(1), expected.objects, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trace.log_q_once, expected.azimuth)
    for row in range(12):
        one, scene = many.select(torch.tensor([row])), trace.latents[row]
        steps = slow_steps(posterior, one, scene)
        steps += [0.0] * (posterior.slots - len(steps))
        assert trace.log_q[row].tolist() == pytest.approx(steps, rel=1e-4, abs=1e-4)
    assert len(trace.latents.count.unique()) > 1
    # Behind the end nothing was chosen; before it, each choice had its probability.
    step = torch.arange(posterior.slots)
    ended = step > trace.latents.count[:, None]
    assert (trace.score[ended] == 0).all()
    assert (trace.score[~ended] < 0).all()
    assert trace.hidden.shape == (12, posterior.slots, posterior.config.hidden)


def test_score_is_the_part_of_log_q_that_was_chosen(plain: Plain, generator: Generator) -> None:
    """log_q less the density of the poses, and no gradient into what a baseline may see."""
    posterior = plain()
    context = posterior.encode(pictures(16))
    trace = posterior.trace(context, generator=generator)
    said: list[Step] = []
    read = posterior._read
    posterior._read = lambda *given: said.append(read(*given)) or said[-1]  # type: ignore
    posterior.log_prob_given(context, trace.latents)
    poses = torch.cat([trace.latents.position, trace.latents.yaw[..., None]], -1)
    density = Step.stack(said).pose.log_prob(poses).sum(-1)
    expected = trace.log_q - density.where(trace.latents.presence, 0.0)
    torch.testing.assert_close(trace.score, expected, rtol=1e-4, atol=1e-4)
    assert not trace.hidden.requires_grad
    assert trace.score.requires_grad


@pytest.mark.parametrize("name", ["tabletop", "tabletop-fixed"])
def test_draws_carry_their_path_wise_derivative(name: str, plain: Plain) -> None:
    """Against differences along a random direction, the random numbers being the same."""
    posterior = plain(name)
    with torch.no_grad():
        encoded = posterior.encode(pictures(6))
    posterior.double()
    parts = [*posterior.recur.parameters(), *posterior.head.parameters()]
    weights = torch.randn(7, dtype=torch.float64, generator=Generator().manual_seed(1))

    def run() -> tuple[Tensor, Tensor]:
        summary = encoded.summary.double()
        azimuth = Gaussian(*(value.double() for value in encoded.azimuth))
        if posterior.camera is not None:
            read = posterior.camera(summary)
            azimuth = Gaussian(read[:, 0], read[:, 1].exp())
        context = PlainContext(summary, azimuth, 0.0)
        trace = posterior.trace(context, 2, generator=Generator().manual_seed(3))
        scene = trace.latents
        pose = torch.cat([scene.position.sin(), scene.yaw.sin()[..., None]], -1)
        pose = pose.where(scene.presence[..., None], 0.0).sum((0, 1))
        rest = torch.stack(
            [
                trace.log_q.sum(),
                trace.log_q_once.sum(),
                trace.score.sum(),
                scene.azimuth.sin().sum(),
            ]
        )
        return (weights * torch.cat([pose, rest])).sum(), torch.cat(
            [scene.presence.flatten(), scene.identity.flatten()]
        )

    if posterior.camera is not None:
        parts += posterior.camera.parameters()
    value, choices = run()
    gradient = torch.autograd.grad(value, parts)
    generator = Generator().manual_seed(4)
    direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parts]
    step, ends = 1e-6, []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, d in zip(parts, direction, strict=True):
                parameter += sign * step * d
            moved, same = run()
        assert torch.equal(same, choices)
        ends.append(float(moved))
    expected = (ends[0] - ends[1]) / (2 * step)
    found = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert abs(expected) > 0.1
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_was_not_there_leaves_no_gradient(plain: Plain, generator: Generator) -> None:
    """Of draws that end at once, all that is learned from is the chance of ending at once."""
    posterior = plain("tabletop-fixed")
    with torch.no_grad():
        posterior.head.bias[0] = -60.0
    trace = posterior.trace(posterior.encode(pictures(3)), 4, generator=generator)
    assert not trace.latents.presence.any()
    (trace.log_q.sum() + trace.score.sum()).backward()
    assert (posterior.head.weight.grad[1:] == 0).all()  # type: ignore[index]
    assert (posterior.head.bias.grad[1:] == 0).all()  # type: ignore[index]


@pytest.mark.parametrize("order", ["given", "any"])
@pytest.mark.parametrize("name", SPECS)
def test_samples_come_as_often_as_the_density_says(
    name: str, order: str, plain: Plain, generator: Generator
) -> None:
    """For z ~ q and any density p inside q, E[f(z) p(z) / q(z)] is the mean of f under p.

    This fails when samples, the density, or the sum over the objects' orders are wrong in count,
    class, place, turn or azimuth. p is a simple density of which all means are known.
    """
    posterior = plain(name, order=order, gain=1.0)
    n, slots, classes = 10_000, posterior.slots, len(posterior.spec.objects)
    image, spread, turn = pictures(1), 0.15, 0.7
    scene = posterior.sample(image, n, generator=generator)
    with torch.no_grad():
        context = posterior.encode(image).select(torch.zeros(n, dtype=torch.int64))
        log_q = posterior.log_prob_given(context, scene).total
    middle = torch.tensor([0.03, -0.02])
    each = Normal(middle, spread).log_prob(scene.position).sum(-1)
    each = each + Normal(0.2, turn).log_prob(scene.yaw) - math.log(classes)
    log_p = (each * scene.presence).sum(1) - math.log(slots + 1)
    if order == "any":  # a set of objects is as probable as all its orders together
        log_p = log_p + (scene.count + 1.0).lgamma()
    if posterior.spec.camera.moves:
        log_p = log_p + Normal(0.05, 0.2).log_prob(scene.azimuth)
    weight = (log_p - log_q).double().exp()

    def summed(value: Tensor) -> Tensor:
        return (value * scene.presence).sum(1)

    offset, mean_count = scene.position - middle, slots / 2
    checks: list[tuple[Tensor, float]] = [(torch.ones(n), 1.0)]
    checks += [((scene.count == k).float(), 1 / (slots + 1)) for k in range(slots + 1)]
    checks += [(summed(scene.identity == c), mean_count / classes) for c in range(classes)]
    checks += [(summed(offset[..., axis]), 0.0) for axis in range(2)]
    checks += [(summed(offset[..., a].square()), mean_count * spread**2) for a in range(2)]
    checks += [(summed(scene.yaw - 0.2), 0.0)]
    checks += [(summed((scene.yaw - 0.2).square()), mean_count * turn**2)]
    if posterior.spec.camera.moves:
        checks += [(scene.azimuth - 0.05, 0.0), ((scene.azimuth - 0.05).square(), 0.2**2)]
    for value, expected in checks:
        term = weight * value.double()
        assert abs(float(term.mean()) - expected) < 4 * float(term.std()) / math.sqrt(n)
    assert float(weight.std()) / math.sqrt(n) < 0.1  # enough samples to tell


# --- the estimate ---


@pytest.mark.parametrize("name", SPECS)
def test_estimate_is_complete_and_consistent(name: str, plain: Plain) -> None:
    posterior = plain(name)
    image = pictures(16)
    estimate = posterior.infer(image)
    scene, counts = estimate.scene, estimate.count_probabilities
    torch.testing.assert_close(counts.sum(1), torch.ones(16))
    assert torch.equal(scene.count, counts.argmax(1))
    torch.testing.assert_close(
        estimate.presence_probability, counts.flip(1).cumsum(1).flip(1)[:, 1:]
    )
    assert torch.equal(scene.identity, estimate.class_probabilities.argmax(-1))
    torch.testing.assert_close(
        estimate.class_probabilities.sum(-1), torch.ones(16, posterior.slots)
    )
    assert (torch.linalg.eigvalsh(estimate.position_covariance) > 0).all()
    order = torch.tensor(posterior.spec.symmetry_orders)[scene.identity]
    assert torch.equal(estimate.yaw_std.isinf(), order == 0)
    assert (scene.yaw[order == 0] == 0).all()
    assert (scene.yaw.abs() <= math.pi / order.clamp_min(1) + 1e-5).all()
    assert bool((estimate.azimuth_std > 0).all()) == posterior.spec.camera.moves
    for b in (0, 7):  # alone as in a batch
        alone = posterior.infer(image[b : b + 1])
        torch.testing.assert_close(alone.scene.position, scene.position[b : b + 1])
        torch.testing.assert_close(alone.yaw_std, estimate.yaw_std[b : b + 1])


@torch.no_grad()
def test_estimate_is_the_peak_of_the_density(plain: Plain) -> None:
    """Of one object: no other class, place or turn is more probable; and as broad as it says."""
    posterior = plain("objects")
    with torch.no_grad():
        posterior.head.bias[0] = 3.0
    image = pictures(6)
    estimate = posterior.infer(image)
    scene = estimate.scene
    assert (scene.count == 1).all()
    context = posterior.encode(image)
    kept = torch.tensor(posterior.spec.symmetry_orders)[scene.identity[:, 0]] == 1

    def density(**changes: Tensor) -> Tensor:
        return posterior.log_prob_given(context, replace(scene, **changes)).objects

    best = density()
    # One standard deviation away, the density is lower by a half.
    std = estimate.position_covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    for axis in range(2):
        moved = scene.position.clone()
        moved[..., axis] += std[..., axis]
        torch.testing.assert_close(density(position=moved), best - 0.5, rtol=1e-4, atol=1e-4)
    for other in range(3):
        assert (density(identity=torch.full_like(scene.identity, other)) <= best + 1e-5).all()
    turned = density(yaw=scene.yaw + estimate.yaw_std.nan_to_num(posinf=0.0))
    torch.testing.assert_close(turned[kept], best[kept] - 0.5, rtol=1e-4, atol=1e-4)


# --- as part of the whole ---


@pytest.mark.parametrize("order", ["given", "any"])
def test_sleep_loss_teaches_it_a_few_scenes_by_heart(order: str, plain: Plain) -> None:
    posterior = plain(order=order, gain=1.0, summary=64, hidden=64).train()
    scene = dreams(posterior, 8, seed=3)
    image = torch.nn.functional.interpolate(
        torch.rand(8, 3, 8, 8, generator=Generator().manual_seed(4)), size=(32, 32)
    )
    optimizer = torch.optim.Adam(posterior.parameters(), lr=5e-3)
    losses = []
    for _ in range(120):
        loss = sleep_loss(posterior, image, scene, tolerance=0.01).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in posterior.parameters())  # nothing stays untrained
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 3
    estimate = posterior.eval().infer(image)
    assert torch.equal(estimate.scene.count, scene.count)
    if order == "given":
        there = scene.presence
        assert torch.equal(estimate.scene.identity[there], scene.identity[there])
        assert (estimate.scene.position - scene.position)[there].norm(dim=-1).median() < 0.1


def test_nvil_reaches_every_parameter(plain: Plain, generator: Generator) -> None:
    posterior = plain(gain=1.0).train()
    image = pictures(6)
    trace = posterior.trace(posterior.encode(image), 4, generator=generator)

    def decoder(scene: Scene) -> Tensor:
        seen = scene.position.cos().sum(-1) + scene.yaw.cos() + scene.identity
        shade = (seen * scene.presence).sum(1) * 0.1 + scene.azimuth.cos() * 0.1
        return shade[:, None, None, None].expand(-1, 3, 32, 32)

    terms = elbo_terms(trace, image, decoder, Likelihood(std=0.3), StepPrior.of(posterior.spec))
    nvil(terms, trace.score, 4).loss.backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("order", ["given", "any"])
def test_checkpoint_round_trip_is_exact(order: str, plain: Plain, tmp_path: Path) -> None:
    posterior = plain(order=order)
    save_checkpoint(tmp_path, posterior, name="plain")
    loaded = load_checkpoint(tmp_path).posterior
    assert isinstance(loaded, PlainPosterior)
    assert loaded.config == posterior.config
    image, scene = pictures(4), dreams(posterior, 4)
    with torch.no_grad():
        expected, found = posterior.log_prob(image, scene), loaded.log_prob(image, scene)
    assert torch.equal(found.total, expected.total)
    assert torch.equal(loaded.infer(image).scene.yaw, posterior.infer(image).scene.yaw)
    assert float(wrap(loaded.infer(image).scene.yaw).abs().max()) > 0
