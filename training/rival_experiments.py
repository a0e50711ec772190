"""The experiments of the models that AIR is held against, as data.

They learn from the images of the experiment of AIR that they are compared with. Steps are so many
as take the same time of one processor: a step of DRAW takes that of thirteen steps of AIR, or of
nine of DAIR, and six of the autoencoder's that of one of DAIR on characters.
"""

from __future__ import annotations

from inference.draw import DrawConfig
from inference.rivals import AnyRivalConfig
from inference.vae import VaeConfig
from training.picture_experiments import PICTURE_EXPERIMENTS, ImageExperiment, PictureExperiment


class RivalExperiment(ImageExperiment):
    """What images to learn from, with which rival, for how long."""

    network: AnyRivalConfig


def _numbers(experiment: PictureExperiment) -> int:
    """How many numbers AIR has to say of an image, presence aside."""
    network = experiment.network
    return network.steps * (network.what + 3)


_DIGITS, _CHARACTERS = PICTURE_EXPERIMENTS["multi-mnist"], PICTURE_EXPERIMENTS["omniglot-dair"]
_BUILTIN = (
    RivalExperiment(
        name="draw",
        data=_DIGITS.data,
        network=DrawConfig(),
        steps=650,
        warmup=100,
        learning_rate=1e-3,
    ),
    RivalExperiment(
        name="omniglot-vae",
        data=_CHARACTERS.data,
        network=VaeConfig(what=_numbers(_CHARACTERS)),
        steps=38_000,
        learning_rate=1e-3,
    ),
)
RIVAL_EXPERIMENTS = {experiment.name: experiment for experiment in _BUILTIN}
