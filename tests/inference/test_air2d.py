"""The 2D model: its bound outcome by outcome, its estimators, DAIR's canvas, its checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from inference.air2d import Air2d, Air2dConfig
from inference.checkpoint import load_checkpoint
from inference.checkpoint2d import Checkpoint2d, open_checkpoint, save_checkpoint2d
from inference.enumerated import Enumerated, enumerated_bound
from inference.estimators import ESTIMATORS, bound_loss
from inference.folder import CheckpointError
from inference.glimpses import Glimpses

TINY = Air2dConfig(
    side=12, window=6, steps=2, what=3, hidden=8, embedding=8, encoder=(8, 8), decoder=(8,)
)
DAIR = TINY.model_copy(update={"sees": "error"})


def make(config: Air2dConfig = TINY) -> Air2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Air2d(config).double()
        nn.init.normal_(model.head.weight)  # so that it says something
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image() -> Tensor:
    """Images of noise."""
    return torch.rand(5, 1, 12, 12, dtype=torch.float64, generator=seeded(1))


@pytest.mark.parametrize("config", [TINY, DAIR], ids=["air", "dair"])
def test_the_enumerated_bound_is_that_of_every_count_in_turn(
    config: Air2dConfig, image: Tensor
) -> None:
    model = make(config)
    context = model.encode(image)
    said = model.unroll(context, noise=seeded())
    prior = config.prior
    on = torch.sigmoid(said.presence_logits)
    bound = torch.zeros(len(image), dtype=torch.float64)
    for n in range(config.steps + 1):
        stops = 1 - on[:, n] if n < config.steps else 1.0
        q = on[:, :n].prod(1) * stops
        presence = (torch.arange(config.steps) < n).expand(len(image), -1)
        picture = model.decoder(Glimpses(presence, said.drawn_where, said.drawn_what))
        pixels = Normal(picture, config.std).log_prob(image).sum((1, 2, 3))
        apart = sum(
            kl_divergence(Normal(*mine), Normal(*theirs))[:, :n].sum((1, 2))
            for mine, theirs in (
                (said.where, prior.where(image)),
                (said.what, prior.what(image)),
            )
        )
        log_p = prior.count_probabilities(config.steps).double()[n].log()
        bound = bound + q * (pixels - apart + log_p - q.log())
    found = enumerated_bound(model, context, generator=seeded())
    torch.testing.assert_close(found.bound, bound)
    torch.testing.assert_close(found.log_q.exp().sum(1), torch.ones_like(bound))


def gradient(model: Air2d, loss: Tensor) -> Tensor:
    """Of what decides the count, and of the decoder."""
    parameters = [model.head.weight, *model.decoder.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("name", ["nvil", "rloo"])
def test_estimators_agree_with_the_enumerated_count_on_average(name: str, image: Tensor) -> None:
    model = make()
    with torch.no_grad():  # windows and codes hold still, so that only counts are noisy
        model.head.weight[4:] = 0
        model.head.bias[4:] = -8
    found = []
    for seed in range(100):
        surrogate = bound_loss(
            model, image[:2], image[:2], model.decoder, model.likelihood, model.config.prior,
            ESTIMATORS[name], samples=16, generator=seeded(seed),
        )  # fmt: skip
        exact = enumerated_bound(model, model.encode(image[:2]), generator=seeded(-seed - 1))
        found.append(gradient(model, surrogate.loss) - gradient(model, -exact.bound.mean()))
    difference = torch.stack(found)
    error = difference.std(0) / len(found) ** 0.5
    moved = error > 0
    score = (difference.mean(0) / error)[moved]
    # Standard normal each, if the two have the same mean.
    assert moved.sum() > 50
    assert score.square().mean() < 2.5
    assert score.abs().amax() < 6.0


def test_vimco_bounds_what_the_enumerated_bound_bounds(image: Tensor) -> None:
    model = make()
    sampled, exact = [], []
    for seed in range(20):
        found = bound_loss(
            model, image, image, model.decoder, model.likelihood, model.config.prior,
            ESTIMATORS["vimco"], samples=8, generator=seeded(seed),
        )  # fmt: skip
        sampled.append(found.bound.mean())
        with torch.no_grad():
            exact.append(enumerated_bound(model, model.encode(image)).bound.mean())
    assert torch.stack(sampled).mean() > torch.stack(exact).mean()  # the tighter of the two


def test_random_counts_teach_a_glimpse_that_was_given_up(image: Tensor) -> None:
    model = make()
    with torch.no_grad():
        model.head.bias[0] = -40.0  # never a first glimpse
    kept = [p for p in model.decoder.parameters() if p.dim() == 2]
    for share, learns in ((0.0, False), (0.3, True)):
        found = enumerated_bound(model, model.encode(image), generator=seeded())
        loss = found.mixed(share)
        plain = (1 - share) * found.bound + share * found.value.mean(1)
        torch.testing.assert_close(loss, plain)
        slopes = torch.autograd.grad(loss.sum(), kept)
        assert any(bool(slope.abs().max() > 1e-6) for slope in slopes) is learns


def test_a_warm_count_is_best_where_it_should_be() -> None:
    """At q(n) proportional to exp(value / temperature): nothing is left to gain there."""
    value = torch.tensor([[0.0, 60.0, 30.0, -200.0]], dtype=torch.float64)
    for temperature in (1.0, 20.0):
        best = (value / temperature).requires_grad_()
        found = Enumerated(best.log_softmax(1), value)
        (slope,) = torch.autograd.grad(found.mixed(0.0, temperature=temperature).sum(), best)
        torch.testing.assert_close(slope, torch.zeros_like(slope))
        share = float(found.log_q[0, 2].detach().exp())
        assert (share > 0.1) == (temperature > 1)  # 30 nats less is still worth a try


def test_a_toll_is_paid_by_each_glimpse(image: Tensor) -> None:
    model = make()
    free, paid = (
        enumerated_bound(model, model.encode(image), toll=toll, generator=seeded()).value
        for toll in (0.0, 7.0)
    )
    counts = torch.arange(TINY.steps + 1, dtype=free.dtype)
    torch.testing.assert_close(free - paid, 7.0 * counts.expand_as(free))


def test_dair_sees_what_is_not_explained_yet(image: Tensor) -> None:
    model = make(DAIR)
    context = model.encode(image)
    state = model.start(context)
    first, after = model.step(context, state, noise=seeded())
    layers = model.decoder.layers(after.where[:, None], after.what[:, None])[:, 0]
    torch.testing.assert_close(after.canvas, layers.detach())
    # A step knows nothing else of those before: an image with so much less looks the same to it.
    second, _ = model.step(context, after, noise="none")
    rest = model.encode(image - after.canvas)
    anew, _ = model.step(rest, model.start(rest), noise="none")
    torch.testing.assert_close(second.presence_logit, anew.presence_logit)
    torch.testing.assert_close(second.what.mean, anew.what.mean)
    assert not torch.allclose(first.presence_logit, second.presence_logit)


def test_what_is_inferred_is_what_is_drawn(image: Tensor) -> None:
    model = make()
    estimate = model.infer(image)
    torch.testing.assert_close(
        estimate.count_probabilities.sum(1), torch.ones(len(image), dtype=torch.float64)
    )
    presence = torch.arange(TINY.steps) < estimate.count[:, None]
    drawn = model.decoder(Glimpses(presence, estimate.where.mean, estimate.what.mean))
    torch.testing.assert_close(estimate.picture, drawn)


def test_images_that_the_model_makes_up_show_as_many_as_its_prior_says() -> None:
    config = TINY.model_copy(update={"prior": TINY.prior.model_copy(update={"ratio": 0.5})})
    counts = config.prior.sample_counts(4000, config.steps, generator=seeded())
    shares = counts.bincount() / 4000
    torch.testing.assert_close(shares, torch.tensor([4 / 7, 2 / 7, 1 / 7]), atol=0.03, rtol=0)
    latents = config.prior.sample(counts, config.steps, config.what, generator=seeded())
    assert torch.equal(latents.count, counts)
    made_up = make(config).float().imagine(counts[:50], generator=seeded())
    assert torch.equal(made_up.amax((1, 2, 3)) > 0, counts[:50] > 0)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 12, 12\), expected \(1, 12, 12\)"):
        make().encode(torch.zeros(1, 3, 12, 12, dtype=torch.float64))


def test_a_checkpoint_gives_back_the_model(image: Tensor, tmp_path: Path) -> None:
    model = make(DAIR).float()
    save_checkpoint2d(tmp_path, model, name="tiny", training={"seed": 3})
    found = open_checkpoint(tmp_path)
    assert isinstance(found, Checkpoint2d)
    assert (found.config.name, found.config.training, found.model.config) == (
        "tiny",
        {"seed": 3},
        DAIR,
    )
    given = image.float()
    torch.testing.assert_close(found.model.infer(given).picture, model.infer(given).picture)


def test_a_checkpoint_of_images_is_not_taken_for_one_of_scenes(tmp_path: Path) -> None:
    save_checkpoint2d(tmp_path, make().float(), name="tiny")
    with pytest.raises(CheckpointError, match="knows no scenes"):
        load_checkpoint(tmp_path)


def test_an_impossible_configuration_is_named(tmp_path: Path) -> None:
    save_checkpoint2d(tmp_path, make().float(), name="tiny")
    path = tmp_path / "config.json"
    data = json.loads(path.read_text())
    data["network"]["steps"] = 0
    path.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"network\.steps: .* greater than or equal to 1"):
        open_checkpoint(tmp_path)
