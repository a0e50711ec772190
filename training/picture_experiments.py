"""The experiments with a learned decoder (section 3.1, appendices D and G), as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from inference.air2d import Air2dConfig
from inference.glimpses import GlimpsePrior
from training.objectives import EstimatorName
from training.pictures import PictureData
from training.schedule import Schedule


class ImageExperiment(Schedule):
    """What images to learn from, for how long."""

    data: PictureData
    steps: int = Field(default=8_000, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    clip_norm: float = Field(default=1000.0, gt=0)  # nats: for the batch that explodes
    # A nat of a code's divergence counts less than one at first, evenly to 1: at the full price few
    # of a code's numbers are ever used. Not where counts are scored.
    code_weight: float = Field(default=0.3, ge=0, le=1)
    code_weight_until: float = Field(default=0.15, gt=0, le=1)  # part of the run

    def code_weight_at(self, part: float) -> float:
        """What a nat of a code's divergence counts when `part` of the run is done."""
        share = min(1.0, part / self.code_weight_until)
        return self.code_weight + (1 - self.code_weight) * share


class PictureExperiment(ImageExperiment):
    """What images AIR learns from, in which shape, for how long."""

    network: Air2dConfig
    estimator: EstimatorName = "enumerate"
    samples: int = Field(default=1, ge=1)  # S, draws an image; rloo and vimco need two
    # How else learning begins when the count is enumerated; it fades evenly. What codes do not pay
    # yet each glimpse pays as a toll, or objects are drawn twice, one over the other. And some
    # counts are told at random, or a toll makes the network give up a glimpse for good before it
    # has learned what it is for.
    toll: float = Field(default=30.0, ge=0)  # nats a glimpse, times what a nat does not count
    random_count: float = Field(default=0.2, ge=0, lt=1)  # share of cases
    random_count_until: float = Field(default=0.3, gt=0, le=1)  # part of the run
    count_temperature: float = Field(default=1.0, ge=1)  # at first; see `Enumerated.mixed`
    count_temperature_until: float = Field(default=0.3, gt=0, le=1)  # part of the run

    def random_count_at(self, part: float) -> float:
        """In which share of cases the count is told at random when `part` of the run is done."""
        return self.random_count * _left(part, self.random_count_until)

    def count_temperature_at(self, part: float) -> float:
        """What a nat of the count's entropy counts when `part` of the run is done."""
        return 1 + (self.count_temperature - 1) * _left(part, self.count_temperature_until)


def _left(part: float, until: float) -> float:
    """How much is left, from 1 to 0, of what is gone after part `until` of the run."""
    return max(0.0, 1 - part / until)


# Windows as large as digits, and a bit.
OWN_SIZE = GlimpsePrior(side=0.45, side_spread=0.15, shift=0.35)
SHRUNK = GlimpsePrior(side=0.35, side_spread=0.1, shift=0.35)
SPRITES = GlimpsePrior(side=0.33, side_spread=0.1, shift=0.35)
# A stroke has to be worth more than a digit has: there is always a bit more to explain.
STROKES = GlimpsePrior(ratio=1e-4, side=0.45, side_spread=0.15, shift=0.35)
DRAWINGS = 19_280  # of Omniglot's background set: all of them


def _digits(
    name: str,
    *,
    counts: tuple[int, ...] = (0, 1, 2),
    sees: Literal["image", "error"] = "image",
    **changes: Any,
) -> PictureExperiment:
    return PictureExperiment(
        name=name,
        data=PictureData(form="separate-digits", counts=counts),
        network=Air2dConfig(sees=sees, prior=OWN_SIZE),
        **changes,
    )


def _characters(name: str, *, sees: Literal["image", "error"] = "image") -> PictureExperiment:
    return PictureExperiment(
        name=name,
        data=PictureData(form="omniglot", counts=(1,), images=DRAWINGS),
        network=Air2dConfig(sees=sees, steps=4, prior=STROKES),
        steps=6_000,
        learning_rate=1e-3,
    )


_BUILTIN = (
    # Without a slow and warm beginning, one seed of five never sees two digits.
    _digits("multi-mnist", warmup=1_500, count_temperature=20.0),
    _digits("multi-mnist-dair", sees="error"),
    # Figure 7: trained without the count that it is then tested on. What is trained on 0 to 2 is
    # tested on 3 as it is.
    _digits("multi-mnist-013", counts=(0, 1, 3)),
    _digits("multi-mnist-013-dair", counts=(0, 1, 3), sees="error"),
    PictureExperiment(
        name="multi-mnist-pyro",
        data=PictureData(form="shrunk-digits"),
        network=Air2dConfig(prior=SHRUNK),
        steps=12_000,
        learning_rate=1e-3,
        warmup=2_000,  # at this rate at once, two digits become one glimpse for good
        toll=12.0,  # digits of half the area are worth half the nats
    ),
    # Sprites have half the brightness of digits, so that two may add up: the noise is halved too.
    # Which colour a sprite has is all in its code, which is read from the beginning or never.
    PictureExperiment(
        name="sprites",
        data=PictureData(form="sprites"),
        network=Air2dConfig(channels=3, prior=SPRITES, std=0.15, first_code=-2.5),
        steps=5_000,
        learning_rate=1e-3,
        code_weight=0.05,
        code_weight_until=0.5,
        random_count=0.6,
        random_count_until=0.5,
        count_temperature=60.0,  # with 1, a seed of five draws close pairs by one glimpse
        count_temperature_until=0.25,  # with 0.5, a third glimpse mends what the first has done
    ),
    _characters("omniglot"),
    _characters("omniglot-dair", sees="error"),
)
PICTURE_EXPERIMENTS = {experiment.name: experiment for experiment in _BUILTIN}


def with_estimator(
    experiment: PictureExperiment, estimator: EstimatorName | None
) -> PictureExperiment:
    """The experiment with another estimator of how the count learns."""
    if estimator is None:
        return experiment
    samples = max(2, experiment.samples) if estimator in ("rloo", "vimco") else experiment.samples
    return experiment.model_copy(update={"estimator": estimator, "samples": samples})
