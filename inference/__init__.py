"""The network that inverts a renderer: from one picture to a density over scenes.

Attend-Infer-Repeat (Eslami et al. 2016): `Posterior` is q(count, identities, poses, azimuth |
picture). It describes one object at a time until nothing is left, gives the log density of scenes
with the order of their objects summed out, draws samples, and infers the most probable scene with
its uncertainty as an `Estimate`. `sleep_loss` is what trains it on scenes that a renderer drew;
`save_checkpoint` and `load_checkpoint` keep a trained one as a folder that holds all it needs.
Positions are in metres and angles in radians, in the table frame.
"""

from inference.build import build_posterior
from inference.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from inference.estimate import Estimate
from inference.network import InferenceNetwork
from inference.plain import PlainConfig, PlainPosterior
from inference.posterior import Posterior, PosteriorConfig
from inference.wakesleep import sleep_loss

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Estimate",
    "InferenceNetwork",
    "PlainConfig",
    "PlainPosterior",
    "Posterior",
    "PosteriorConfig",
    "build_posterior",
    "load_checkpoint",
    "save_checkpoint",
    "sleep_loss",
]
