"""What AIR's inferences are worth to whoever has few labels (section 3.1.2, figure 8, appendix E).

A small network learns from labelled images of two digits what they add up to, or whether they
ascend: from what an AIR says of the images, which learned that without labels, or from the pixels
by the paper's convolutional network. Both learn in the same way, from the same images, one in five
of which says when to stop.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.air2d import Air2d
from inference.checkpoint2d import Checkpoint2d
from inference.decoder2d import perceptron
from training.dreams import generator_for
from training.pairs import SUMS, Pairs, make_pairs
from training.picture_evaluation import FRESH, evaluation_set
from training.picture_experiments import PictureExperiment

SIZES = (100, 300, 1_000, 3_000, 10_000)  # labelled images
TEST = 5_000  # images of test digits
WIDTH = 512
BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
HELD_OUT = 5  # one labelled image in so many says when to stop
EVERY = 25  # steps between two looks at those
PATIENCE = 8  # looks without a better one after which it stops
CHUNK = 500  # images a pass

TASKS: dict[str, tuple[int, Callable[[Pairs], Tensor]]] = {
    "sum": (SUMS, lambda pairs: pairs.total),
    "order": (2, lambda pairs: pairs.ascends),
}
"""By name: how many classes there are, and the labels."""


def represent(
    checkpoint: Checkpoint2d, *, sizes: Sequence[int] = SIZES, seed: int = 0
) -> dict[str, Any]:
    """Accuracies over the number of labelled images, of AIR's inferences and of pixels.

    Args:
        checkpoint: an AIR that learned from digits.
        sizes: numbers of labelled images, any order.
        seed: of the images, of which of them are labelled, and of the networks.

    Returns:
        The figures as plain data: under `accuracy`, by task and input, one for each size.

    Raises:
        ValueError: it did not learn from digits, or a size is too small.
        DataError: MNIST is not there.
    """
    if not sizes or min(sizes) < 2 * HELD_OUT:
        raise ValueError(f"--sizes: give numbers of at least {2 * HELD_OUT} labelled images")
    experiment = PictureExperiment.model_validate(checkpoint.config.training["experiment"])
    data = evaluation_set(experiment.data, images=max(sizes), seed=seed)
    known = make_pairs(data, "train")
    asked = make_pairs(data.model_copy(update={"images": TEST}), "test")
    inputs: dict[str, Callable[[Pairs], Tensor]] = {
        "inferences": lambda pairs: inferences(checkpoint.model, pairs.image),
        "pixels": lambda pairs: pairs.image.float().div_(255.0),
    }
    accuracy: dict[str, dict[str, list[float]]] = {task: {} for task in TASKS}
    seconds: dict[str, float] = {}
    for name, see in inputs.items():
        seen, tested = see(known), see(asked)
        started = time.process_time()
        for task, (classes, label) in TASKS.items():
            accuracy[task][name] = [
                learn(
                    network_for(seen, classes, seed),
                    (seen[:size], label(known)[:size]),
                    (tested, label(asked)),
                    generator=generator_for(seed, "represent"),
                )
                for size in sizes
            ]
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


@torch.no_grad()
def inferences(model: Air2d, image: Tensor) -> Tensor:
    """What a model says of images, as one vector each: `[B, K (4 + D)]`.

    Of each step whether there is something, where, and what, at the centre of every density; where
    in standard deviations of the prior. What is probably not there counts as little as it is
    probable.

    Args:
        model: that says it.
        image: `[B, channels, side, side]` uint8.
    """
    found = []
    for part in image.split(CHUNK):
        estimate = model.infer(part.float().div_(255.0))
        prior = model.config.prior.where(estimate.where.mean)
        where = (estimate.where.mean - prior.mean) / prior.std
        present = estimate.presence_probability[..., None]
        said = torch.cat([torch.ones_like(present), where, estimate.what.mean], -1)
        found.append((present * said).flatten(1))
    return torch.cat(found)


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
    known: tuple[Tensor, Tensor],
    asked: tuple[Tensor, Tensor],
    *,
    generator: torch.Generator,
) -> float:
    """Teaches a network to tell classes; returns its accuracy on what it is asked.

    Args:
        network: that learns.
        known: inputs `[n, ...]` and their classes `[n]`; one in five says when to stop.
        asked: likewise, to be measured on.
        generator: of the batches.
    """
    inputs, labels = known
    held = len(inputs) // HELD_OUT
    inputs, labels = inputs[held:], labels[held:]
    watched = known[0][:held], known[1][:held]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    best, state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    while waited < PATIENCE:
        for _ in range(EVERY):
            rows = torch.randint(len(inputs), (BATCH,), generator=generator)
            loss = functional.cross_entropy(network(inputs[rows]), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        found = functional.cross_entropy(_answers(network, watched[0]), watched[1]).item()
        if found < best:
            best, state, waited = found, copy.deepcopy(network.state_dict()), 0
        else:
            waited += 1
    network.load_state_dict(state)
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
