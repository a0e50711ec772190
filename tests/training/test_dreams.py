"""The batches of the sleep phase depend on seed and number alone."""

import torch

from renderer.spec import SceneSpec
from training.dreams import Dreams, generator_for, stream
from training.experiments import EXPERIMENTS


def dreams(seed: int = 0) -> Dreams:
    return Dreams(
        SceneSpec.load("tabletop"),
        height=32,
        width=32,
        supersample=1,
        backend="raycast",
        batch=4,
        seed=seed,
    )


def test_a_batch_is_the_same_wherever_the_stream_starts() -> None:
    early = dict(zip(range(3), stream(dreams(), 0, 3, workers=0), strict=True))
    ((pictures, scene),) = stream(dreams(), 2, 3, workers=0)
    assert torch.equal(pictures, early[2][0])
    assert torch.equal(scene.position, early[2][1].position)
    assert not torch.equal(early[0][0], early[1][0])


def test_another_seed_draws_other_scenes() -> None:
    first, second = (dreams(seed)[0] for seed in (0, 1))
    assert not torch.equal(first.scene[2], second.scene[2])


def test_generators_of_different_purpose_never_coincide() -> None:
    keys = [(0, "dream", 1), (1, "dream", 0), (0, "held out"), ("evaluate", 0), ("photos", 0)]
    firsts = {generator_for(*key).initial_seed() for key in keys}
    assert len(firsts) == len(keys)


def test_every_experiment_names_a_spec_that_loads() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert SceneSpec.load(experiment.spec).name == experiment.spec
