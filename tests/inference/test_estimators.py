"""Each estimator against the exact gradient of a problem small enough to enumerate.

Two steps, two classes, a pose each. The noise of a pose has two values, so that all that can
happen is 4 draws of noise times 7 choices; the path-wise derivative does not mind.
"""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from inference.elbo import Terms
from inference.estimators import ESTIMATORS, Baseline, Estimator, nvil, rloo, vimco

STEPS, CLASSES, SAMPLES = 2, 2, 2
IMAGE = torch.tensor([0.9, -0.4], dtype=torch.float64)
Choice = tuple[int, ...]  # the classes of the objects, as many as there are
CHOICES: list[Choice] = [
    choice for n in range(STEPS + 1) for choice in itertools.product(range(CLASSES), repeat=n)
]
NOISES = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=STEPS)), dtype=torch.float64)


class Weights(NamedTuple):
    """Parameters of a posterior of which each step sees the class of the one before."""

    presence: Tensor  # [T, 1 + C]
    classes: Tensor  # [T, 1 + C, C]
    mean: Tensor  # [T, C]
    log_std: Tensor  # [T, C]


@pytest.fixture
def weights() -> Weights:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        value = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return value.mul_(0.7).requires_grad_()

    return Weights(
        draw(STEPS, 1 + CLASSES), draw(STEPS, 1 + CLASSES, CLASSES), draw(STEPS, CLASSES),
        draw(STEPS, CLASSES),
    )  # fmt: skip


def terms_of(
    weights: Weights, count: Tensor, classes: Tensor, noise: Tensor
) -> tuple[Terms, Tensor]:
    """The bound's terms for R draws, and their scores `[R, T]`."""
    picture = torch.zeros(len(count), 2, dtype=torch.float64)
    before = torch.zeros(len(count), dtype=torch.int64)  # 0: nothing yet
    steps, scores = [], []
    for step in range(STEPS):
        logit = weights.presence[step, before]
        chosen = classes[:, step]
        log_class = weights.classes[step, before].log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        mean, std = weights.mean[step, chosen], weights.log_std[step, chosen].exp()
        pose = mean + std * noise[:, step]
        log_pose = -0.5 * ((pose - mean) / std) ** 2 - std.log()
        log_p = math.log(0.4 / CLASSES) - 0.5 * pose**2
        on = functional.logsigmoid(logit) + log_class
        present, stops = step < count, step == count
        zero = torch.zeros_like(logit)
        off = functional.logsigmoid(-logit)
        steps.append(
            torch.where(
                present, log_p - on - log_pose, torch.where(stops, math.log(0.6) - off, zero)
            )
        )
        scores.append(torch.where(present, on, torch.where(stops, off, zero)))
        shape = torch.stack([torch.cos(pose + chosen), torch.sin(2 * pose - chosen)], dim=1)
        picture = picture + torch.where(present[:, None], shape, 0.0)
        before = torch.where(present, 1 + chosen, before)
    likelihood = -((picture - IMAGE) ** 2).sum(1) / (2 * 0.5**2)
    return Terms(likelihood, torch.stack(steps, 1), torch.zeros_like(likelihood)), torch.stack(
        scores, 1
    )


def everything(weights: Weights) -> tuple[Terms, Tensor]:
    """All that can happen, as draws: each choice with each noise."""
    padded = [choice + (0,) * (STEPS - len(choice)) for choice in CHOICES]
    rows = list(itertools.product(range(len(CHOICES)), range(len(NOISES))))
    chosen, noisy = (torch.tensor(column) for column in zip(*rows, strict=True))
    count = torch.tensor([len(choice) for choice in CHOICES])
    return terms_of(weights, count[chosen], torch.tensor(padded)[chosen], NOISES[noisy])


def exact_bound(weights: Weights, samples: int) -> Tensor:
    """The bound's expectation, every draw of `samples` explanations weighted by its probability."""
    terms, score = everything(weights)
    probability = score.sum(1).exp() / len(NOISES)
    torch.testing.assert_close(probability.sum().detach(), torch.ones((), dtype=torch.float64))
    total = terms.total
    if samples == 1:
        return (probability * total).sum()
    pairs = torch.logaddexp(total[:, None], total[None]) - math.log(2)
    return (probability[:, None] * probability[None] * pairs).sum()


def draw(
    weights: Weights, images: int, samples: int, generator: torch.Generator
) -> tuple[Terms, Tensor]:
    """Draws of the posterior, `samples` side by side for each of `images`."""
    rows = images * samples
    count = torch.full((rows,), STEPS)
    classes = torch.zeros(rows, STEPS, dtype=torch.int64)
    before = torch.zeros(rows, dtype=torch.int64)
    open_rows = torch.ones(rows, dtype=torch.bool)
    with torch.no_grad():
        for step in range(STEPS):
            on = torch.rand(rows, generator=generator) < weights.presence[step, before].sigmoid()
            count = torch.where(open_rows & ~on, step, count)
            open_rows = open_rows & on
            probabilities = weights.classes[step, before].softmax(-1)
            classes[:, step] = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            before = torch.where(open_rows, 1 + classes[:, step], before)
    noise = NOISES[torch.randint(len(NOISES), (rows,), generator=generator)]
    return terms_of(weights, count, classes, noise)


def gradient(loss: Tensor, weights: Weights) -> Tensor:
    return torch.cat([value.flatten() for value in torch.autograd.grad(loss, tuple(weights))])


def estimates(
    estimator: Estimator, weights: Weights, generator: torch.Generator, *, baseline: bool
) -> Tensor:
    """Gradients of 400 batches of 100 images: `[400, P]`."""
    rows = []
    for _ in range(400):
        terms, score = draw(weights, 100, SAMPLES, generator)
        # Any numbers that do not depend on the step's own choice are a baseline.
        known = terms.downstream.detach().mean(0, keepdim=True).expand_as(score)
        loss = estimator(terms, score, SAMPLES, known if baseline else None).loss
        rows.append(-gradient(loss, weights))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("name", "baseline"),
    [("nvil", False), ("nvil", True), ("rloo", False), ("rloo", True), ("vimco", False)],
)
def test_on_average_it_is_the_exact_gradient(
    name: str,
    baseline: bool,
    weights: Weights,
    generator: torch.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = gradient(exact_bound(weights, SAMPLES if name == "vimco" else 1), weights)
    found = estimates(ESTIMATORS[name], weights, generator, baseline=baseline)
    error = found.mean(0) - expected
    deviation = found.std(0) / math.sqrt(len(found))
    with capsys.disabled():
        label = f"{name}{' with a baseline' if baseline else ''}"
        print(f"\n{label}: variance of a gradient of 100 images {float(found.var(0).sum()):.4f}")
    # What no choice reaches, such as a first step that has seen an object, has no gradient.
    reached = deviation > 0
    assert bool((error[~reached] == 0).all())
    assert float((error / deviation)[reached].abs().max()) < 4.5
    assert float(error.norm()) < 0.03 * float(expected.norm())


def test_baselines_take_variance_away(weights: Weights, generator: torch.Generator) -> None:
    variance = {
        (name, baseline): float(
            estimates(ESTIMATORS[name], weights, generator, baseline=baseline).var(0).sum()
        )
        for name, baseline in [("nvil", False), ("nvil", True), ("rloo", False)]
    }
    assert variance["nvil", True] < 0.9 * variance["nvil", False]
    assert variance["rloo", False] < variance["nvil", False]


def test_the_bounds_are_those_of_their_names(weights: Weights, generator: torch.Generator) -> None:
    terms, score = draw(weights, 4000, SAMPLES, generator)
    plain, tight = (float(exact_bound(weights, n).detach()) for n in (1, 2))
    assert tight > plain + 0.05  # nats: several draws bound more tightly
    for estimator, expected in ((nvil, plain), (rloo, plain), (vimco, tight)):
        bound = estimator(terms, score, SAMPLES, None).bound
        assert bound.shape == (4000,)
        deviation = float(bound.std()) / math.sqrt(len(bound))
        assert abs(float(bound.mean()) - expected) < 4.5 * deviation


@pytest.mark.parametrize("estimator", [rloo, vimco])
def test_what_compares_draws_asks_for_two(estimator: Estimator, weights: Weights) -> None:
    terms, score = everything(weights)
    with pytest.raises(ValueError, match="2 samples or more"):
        estimator(terms, score, 1, None)


def test_a_baseline_learns_what_to_expect(generator: torch.Generator) -> None:
    """Of signals of thousands of nats that depend on what a step knows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        baseline = Baseline(4)
    optimizer = torch.optim.Adam(baseline.parameters(), lr=1e-2)
    slope = torch.tensor([300.0, -200.0, 0.0, 100.0])
    for _ in range(300):
        hidden = torch.randn(64, 1, 4, generator=generator)
        signal = hidden @ slope - 5000
        baseline.update(signal)
        terms = Terms(signal[:, 0], torch.zeros(64, 1), torch.zeros(64))
        score = torch.full((64, 1), -1.0)
        loss = nvil(terms, score, 1, baseline(hidden)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hidden = torch.randn(500, 1, 4, generator=generator)
    signal = hidden @ slope - 5000
    left = (signal - baseline(hidden).detach()).std()
    assert float(left) < 0.2 * float(signal.std())
