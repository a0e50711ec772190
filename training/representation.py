"""What AIR's inferences are worth to whoever has few labels (section 3.1.2, figure 8, appendix E).

A small network learns from labelled images of two digits what they add up to, or whether they
ascend: from what an AIR says of the images, which learned that without labels, or from the pixels
by the paper's convolutional network. Both learn in the same way, until they fit their images.

What AIR says is a density, and the order of its objects is arbitrary (section 2): a network that
learns from it sees another draw each time, objects in another order. Pixels have neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.air2d import Air2d
from inference.checkpoint2d import Checkpoint2d
from inference.decoder2d import perceptron
from inference.distributions import Gaussian
from training.dreams import generator_for
from training.pairs import SUMS, Pairs, make_pairs
from training.picture_evaluation import FRESH, evaluation_set
from training.picture_experiments import PictureExperiment

SIZES = (100, 300, 1_000, 3_000)  # labelled images
TEST = 5_000  # images of test digits
WIDTH = 512
BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
STEPS = 3_000  # at most
FITTED = 0.02  # nats an image, over WINDOW steps: what is left when the images are known by heart
WINDOW = 50
CHUNK = 500  # images a pass

TASKS: dict[str, tuple[int, Callable[[Pairs], Tensor]]] = {
    "sum": (SUMS, lambda pairs: pairs.total),
    "order": (2, lambda pairs: pairs.ascends),
}
"""By name: how many classes there are, and the labels."""


def represent(
    checkpoint: Checkpoint2d,
    *,
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Accuracies over the number of labelled images, of AIR's inferences and of pixels.

    Args:
        checkpoint: an AIR that learned from digits.
        sizes: numbers of labelled images, any order.
        seed: of the images, of which of them are labelled, and of the networks.
        tell: called with a line about each accuracy as it is found.

    Returns:
        The figures as plain data: under `accuracy`, by task and input, one for each size.

    Raises:
        ValueError: it did not learn from digits, or there are no sizes.
        DataError: MNIST is not there.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError("--sizes: give numbers of labelled images, at least 1 each")
    experiment = PictureExperiment.model_validate(checkpoint.config.training["experiment"])
    data = evaluation_set(experiment.data, images=max(sizes), seed=seed)
    known = make_pairs(data, "train")
    asked = make_pairs(data.model_copy(update={"images": TEST}), "test")
    inputs: dict[str, Callable[[Pairs], Seen]] = {
        "inferences": lambda pairs: infer(checkpoint.model, pairs.image),
        "pixels": lambda pairs: Pixels(pairs.image.float().div_(255.0)),
    }
    accuracy: dict[str, dict[str, list[float]]] = {
        task: {name: [] for name in inputs} for task in TASKS
    }
    seconds: dict[str, float] = {}
    for name, see in inputs.items():
        seen, tested = see(known), see(asked)
        started = time.process_time()
        for task, (classes, label) in TASKS.items():
            for size in sizes:
                found = learn(
                    network_for(tested.centre(), classes, seed),
                    seen,
                    label(known)[:size],
                    (tested.centre(), label(asked)),
                    generator=generator_for(seed, "represent"),
                )
                accuracy[task][name].append(found)
                tell(f"{task} from {name}, {size:,} labelled images: {found:.3f}")
        seconds[name] = round(time.process_time() - started, 1)
    return {
        "checkpoint": checkpoint.config.name,
        "sha256": checkpoint.config.sha256,
        "form": data.form,
        "seed": seed,
        "image_seed": FRESH + seed,
        "test_images": TEST,
        "sizes": list(sizes),
        "accuracy": accuracy,
        "cpu_seconds": seconds,
    }


class Seen(Protocol):
    """What a network sees of n images."""

    def centre(self) -> Tensor:
        """Of all of them, `[n, ...]`."""
        ...

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of images `rows` `[B]`, to learn from: `[B, ...]`."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Images as they are."""

    image: Tensor  # [n, channels, side, side] in [0, 1]

    def centre(self) -> Tensor:
        """See `Seen`."""
        return self.image

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """See `Seen`."""
        return self.image[rows]


@dataclass(frozen=True)
class Inferences:
    """What an AIR says of n images, as a vector of K (4 + D) numbers.

    Of each step whether there is something, where, and what; what is probably not there counts as
    little as it is probable.
    """

    presence: Tensor  # [n, K], probabilities that there are so many
    where: Gaussian  # [n, K, 3], standard deviations of the prior from its mean
    what: Gaussian  # [n, K, D]

    def centre(self) -> Tensor:
        """See `Seen`: at the centre of every density, in the order of the steps."""
        return _features(self.presence, self.where.mean, self.what.mean)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """See `Seen`: a draw of each density, what is there in random order."""
        presence = self.presence[rows]
        where, what = (
            Gaussian(density.mean[rows], density.std[rows]).sample(generator)
            for density in (self.where, self.what)
        )
        keys = torch.rand(presence.shape, generator=generator)
        order = torch.where(presence > 0.5, keys, keys + 1).argsort(1)
        presence = presence.gather(1, order)
        where, what = (
            value.gather(1, order[..., None].expand_as(value)) for value in (where, what)
        )
        return _features(presence, where, what)


def _features(presence: Tensor, where: Tensor, what: Tensor) -> Tensor:
    said = torch.cat([torch.ones_like(where[..., :1]), where, what], -1)
    return (presence[..., None] * said).flatten(1)


@torch.no_grad()
def infer(model: Air2d, image: Tensor) -> Inferences:
    """What a model says of images `[n, channels, side, side]` uint8."""
    found = [model.infer(part.float().div_(255.0)) for part in image.split(CHUNK)]
    where, what = (
        Gaussian(*(torch.cat(values) for values in zip(*densities, strict=True)))
        for densities in ([part.where for part in found], [part.what for part in found])
    )
    prior = model.config.prior.where(where.mean)
    return Inferences(
        torch.cat([part.presence_probability for part in found]),
        Gaussian((where.mean - prior.mean) / prior.std, where.std / prior.std),
        what,
    )


def network_for(inputs: Tensor, classes: int, seed: int) -> nn.Module:
    """The network of appendix E for such inputs, with fresh weights.

    Args:
        inputs: `[n, features]` for four layers of 512 units, `[n, channels, side, side]` for three
            convolutions and a layer.
        classes: to choose among.
        seed: of the weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(int(generator_for(seed, "classifier").initial_seed()))
        if inputs.dim() == 2:
            return perceptron(inputs.shape[1], (WIDTH,) * 4, classes)
        # The paper does not say how its convolutions come down to 512 units; here, by strides.
        channels, side = inputs.shape[1], inputs.shape[2]
        layers: list[nn.Module] = []
        for before in (channels, 64, 64):
            layers += [nn.Conv2d(before, 64, 5, stride=2, padding=2), nn.ReLU()]
            side = (side + 1) // 2
        flat = 64 * side * side
        return nn.Sequential(*layers, nn.Flatten(), *perceptron(flat, (WIDTH,), classes))


def learn(
    network: nn.Module,
    seen: Seen,
    labels: Tensor,
    asked: tuple[Tensor, Tensor],
    *,
    generator: torch.Generator,
) -> float:
    """Teaches a network to tell classes; returns its accuracy on what it is asked.

    Args:
        network: that learns.
        seen: what it learns from: the first images, as many as there are labels.
        labels: `[n]` int64, their classes.
        asked: inputs and their classes, to be measured on.
        generator: of the batches, and of what is drawn for them.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    losses: list[float] = []
    for _ in range(STEPS):
        rows = torch.randint(len(labels), (BATCH,), generator=generator)
        loss = functional.cross_entropy(network(seen.draw(rows, generator)), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if len(losses) >= WINDOW and sum(losses[-WINDOW:]) < FITTED * WINDOW:
            break
    return float((_answers(network, asked[0]).argmax(1) == asked[1]).double().mean())


@torch.no_grad()
def _answers(network: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([network(part) for part in inputs.split(CHUNK)])


def table(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures as rows: task, input, and an accuracy for each size."""
    return [
        (task, name, *(f"{value:.3f}" for value in values))
        for task, found in figures["accuracy"].items()
        for name, values in found.items()
    ]
