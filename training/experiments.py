"""The experiments: named values, one loop runs them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from inference.build import NetworkConfig
from inference.checkpoint import SCENE, Checkpoint
from inference.plain import PlainConfig
from inference.posterior import PosteriorConfig
from inference.slots import SlotsConfig
from renderer.spec import SceneSpec
from training.defaults import SHARPEST, default_network, default_steps
from training.objectives import EstimatorName, ObjectiveName, WakeConfig
from training.picture_experiments import PICTURE_EXPERIMENTS
from training.schedule import Schedule

COMPARED = 64  # px, the height at which a photo and its explanation are compared, about
SHIPPED = Path(__file__).parents[1] / "checkpoints"


class Experiment(Schedule):
    """What to learn of the scenes of a SceneSpec, with which network, for how long."""

    spec: str  # a built-in SceneSpec or a YAML file
    objective: ObjectiveName = "sleep"
    wake: WakeConfig = WakeConfig()
    network: NetworkConfig = PosteriorConfig()
    supersample: int = Field(default=2, ge=1)
    backend: str = "auto"
    tolerance: float = Field(default=0.03, ge=0)  # m, at the start: how coarsely positions count
    tolerance_until: float = Field(default=0.5, gt=0, le=1)  # part of the run after which it is 0


NetworkName = Literal["cells", "plain", "plain-any", "slots"]

# What `--objective` changes in an experiment, beside the objective itself.
Variants = dict[ObjectiveName, dict[str, Any]]

LARGE = PosteriorConfig(sharpest=SHARPEST)
SMALL = PosteriorConfig(height=64, width=64, channels=64, summary=128, blocks=1)

# The paper's network (appendix H.4) and its pictures: drawn with 128 px, averaged down to 32.
PAPER: dict[str, Any] = {"network": PlainConfig(), "supersample": 4}
PAPERS_BOUND = WakeConfig(estimator="nvil", std=(0.5, 0.12), blur=(2.5, 0.5), until=0.5)

# From images alone: several objects are told from noise only where the likelihood is sharp.
SEVERAL: dict[str, Any] = {
    "batch": 32,
    "steps": 4_000,
    "warmup": 50,
    "wake": WakeConfig(std=(0.25, 0.04), blur=(1.5, 0.5), shrink=2),
}

_BUILTIN: dict[str, tuple[Experiment, Variants]] = {
    "tabletop": (
        Experiment(name="tabletop", spec="tabletop", network=LARGE),
        {"elbo": {"network": SMALL, **SEVERAL}},
    ),
    "tabletop-varied": (
        Experiment(name="tabletop-varied", spec="tabletop-varied", network=LARGE, steps=12_000),
        {},
    ),
    "tabletop-fixed": (
        Experiment(name="tabletop-fixed", spec="tabletop-fixed", network=SMALL, steps=3_000),
        {"elbo": SEVERAL},
    ),
    "tabletop-fixed-once": (
        Experiment(
            name="tabletop-fixed-once", spec="tabletop-fixed-once", network=SMALL, steps=3_000
        ),
        {"elbo": SEVERAL},
    ),
    "objects": (
        Experiment(name="objects", spec="objects", network=SMALL, steps=1_500),
        {
            "elbo": {
                "batch": 32,
                "warmup": 50,
                "clip_norm": 10.0,
                # Yaw is learned while positions count coarsely, and is found late: see `turns`.
                "tolerance": 0.1,
                "tolerance_until": 0.9,
                "wake": WakeConfig(
                    draws=2,
                    turns=8,
                    polish=2,
                    std=(0.5, 0.12),
                    blur=(2.5, 0.5),
                    until=0.35,
                    shrink=2,
                ),
            }
        },
    ),
    **{
        f"{spec}-paper": (
            Experiment(
                name=f"{spec}-paper",
                spec=spec,
                objective="elbo",
                wake=PAPERS_BOUND,
                batch=32,
                steps=4_000,
                **PAPER,
            ),
            {},
        )
        for spec in ("objects", "tabletop-fixed", "tabletop")
    },
}
EXPERIMENTS = {name: experiment for name, (experiment, _) in _BUILTIN.items()}


def find_experiment(name: str, objective: ObjectiveName | None = None) -> Experiment:
    """A built-in experiment, or the default one on a SceneSpec of the user's.

    Args:
        name: of the experiment, or a YAML file.
        objective: what to maximise; the experiment's own when not given.

    Raises:
        ValueError: there is neither.
        SpecError: the SceneSpec cannot be used.
    """
    if name in _BUILTIN:
        experiment, variants = _BUILTIN[name]
        return _with_objective(experiment, objective, variants)
    if not Path(name).is_file():
        raise ValueError(
            f"unknown experiment {name!r}; choose "
            f"{', '.join([*EXPERIMENTS, *PICTURE_EXPERIMENTS])}, or give a YAML file"
        )
    spec = SceneSpec.load(name)
    experiment = Experiment(
        name=spec.name, spec=name, network=default_network(spec), steps=default_steps(spec)
    )
    return _with_objective(experiment, objective, {})


def _with_objective(
    experiment: Experiment, objective: ObjectiveName | None, variants: Variants
) -> Experiment:
    if objective is None:
        return experiment
    changes: dict[str, Any] = {"objective": objective}
    if objective == "supervised":  # of appendix H.5
        changes["network"] = _network("plain", experiment.network)
    return experiment.model_copy(update={**changes, **variants.get(objective, {})})


def vary(
    experiment: Experiment, network: NetworkName | None, estimator: EstimatorName | None
) -> Experiment:
    """The experiment with another network, or another estimator of the bound's gradient."""
    changes: dict[str, Any] = {}
    if network is not None:
        changes["network"] = _network(network, experiment.network)
    if estimator is not None:
        if experiment.objective not in ("elbo", "wake-sleep"):
            raise ValueError(
                f"--estimator {estimator}: the objective {experiment.objective!r} has no bound; "
                "choose --objective elbo or wake-sleep"
            )
        changes["wake"] = experiment.wake.model_copy(update={"estimator": estimator})
    return experiment.model_copy(update=changes)


def _network(name: NetworkName, like: NetworkConfig) -> NetworkConfig:
    """The default network of that name, reading pictures of the same size as another."""
    if name == "slots":
        return SlotsConfig(height=like.height, width=like.width)
    if name != "cells":
        order: Literal["given", "any"] = "any" if name == "plain-any" else "given"
        return PlainConfig(height=like.height, width=like.width, order=order)
    if isinstance(like, PosteriorConfig):
        return like
    return PosteriorConfig(height=like.height, width=like.width)


# What changes where a trained model goes on: gently, and nothing counted coarsely again.
GOING_ON: dict[str, Any] = {
    "batch": 16,
    "steps": 1_000,
    "learning_rate": 2e-4,
    "warmup": 50,
    "tolerance": 0.0,
}


# What changes where a trained model learns another look of its world: it knows positions sharply,
# and has to be told off gently.
RELEARNING: dict[str, Any] = {
    "steps": 6_000,
    "learning_rate": 5e-4,
    "warmup": 100,
    "tolerance": 0.01,
    "tolerance_until": 0.2,
}


def relearning(experiment: Experiment, start: Checkpoint) -> Experiment:
    """The experiment, in its own world, with the network of a model to begin with.

    Args:
        experiment: whose world is learned.
        start: the model.

    Raises:
        ValueError: the model knows other objects than those of the experiment.
    """
    own, known = SceneSpec.load(experiment.spec), start.spec
    if (own.class_names, own.symmetry_orders) != (known.class_names, known.symmetry_orders):
        raise ValueError(
            f"--start {start.folder}: knows {', '.join(known.class_names)}, and {own.name} has "
            f"{', '.join(own.class_names)} (order and symmetry count); begin with another "
            "checkpoint, or with none"
        )
    network = start.config.network
    if isinstance(network, PosteriorConfig):
        network = network.model_copy(update={"sharpest": max(network.sharpest, SHARPEST)})
    return experiment.model_copy(update={"network": network, **RELEARNING})


def going_on(experiment: Experiment, start: Checkpoint) -> Experiment:
    """The experiment with the network and the world of a model to begin with, for photos.

    Args:
        experiment: whose objective and schedules, apart from those that training from scratch
            needs.
        start: the model.
    """
    config = start.config
    shrink = 2 if config.network.height >= 2 * COMPARED else 1
    # Scenes that the model finds are as exact as those that it has learned from.
    exact = {"shrink": shrink, "draws": 1, "polish": 2}
    wake = experiment.wake.model_copy(update=exact)
    spec = str(start.folder / SCENE / config.scene)
    changes = {"network": config.network, "spec": spec, "wake": wake, **GOING_ON}
    return experiment.model_copy(update=changes)


def starting_point(name: str, start: Path | None, images: Path | None) -> Path | None:
    """The checkpoint folder to begin with, or none to begin with fresh weights.

    Args:
        name: of the experiment. With photos, the shipped model of that name is where to begin.
        start: what the user chose.
        images: a folder of photos, if they are to be learned from.
    """
    shipped = SHIPPED / name
    return shipped if start is None and images is not None and shipped.is_dir() else start
