"""The batches of the sleep phase depend on seed and number alone."""

from pathlib import Path

import pytest
import torch

from inference.posterior import Posterior
from renderer.spec import BUILTIN, SceneSpec
from training.defaults import PIXELS, input_size
from training.dreams import Dreams, generator_for, stream
from training.experiments import EXPERIMENTS, find_experiment


def dreams(seed: int = 0, spec: str = "tabletop") -> Dreams:
    return Dreams(
        SceneSpec.load(spec),
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


def test_batches_need_a_backend_by_name() -> None:
    with pytest.raises(ValueError, match="ask choose_backend once"):
        Dreams(
            SceneSpec.load("tabletop"),
            **{"height": 32, "width": 32, "supersample": 1, "batch": 4, "seed": 0},
            backend="auto",
        )


def test_dreams_are_as_varied_as_their_spec_says() -> None:
    varied = dreams(spec="tabletop-varied")
    assert torch.equal(varied[0].pictures, varied[0].pictures)
    # The wall in the upper left corner is always black, or of any colour and as many.
    usual, other = (one[0].pictures[:, 0, 0].float() for one in (dreams(), varied))
    assert usual.mean() < 10 < other.mean()
    assert other.std(dim=0).mean() > 10


def test_worker_processes_do_not_draw_on_a_card() -> None:
    on_card = dreams()
    on_card.device = "cuda"
    with pytest.raises(ValueError, match="pictures on cuda are drawn in this process; use 0 work"):
        next(stream(on_card, 0, 1, workers=1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_batches_of_a_card_are_those_of_the_host() -> None:
    on_card = dreams()
    on_card.device = "cuda"
    ((pictures, scene),) = stream(on_card, 3, 4, workers=0)
    expected, expected_scene = next(stream(dreams(), 3, 4, workers=0))
    assert pictures.device.type == scene.yaw.device.type == "cuda"
    assert torch.equal(scene.position.cpu(), expected_scene.position)
    # Each has its own grain; one grey level in a hundred pixels may be the renderer's.
    assert (pictures.cpu().float() - expected.float()).mean().abs() < 0.5


def test_every_experiment_names_a_spec_that_loads() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert SceneSpec.load(experiment.spec).name == experiment.spec


def test_the_input_of_a_users_spec_has_the_cameras_aspect(tmp_path: Path) -> None:
    text = (BUILTIN / "objects.yaml").read_text()
    text = text.replace("azimuth_deg: [0, 0]", "azimuth_deg: [0, 0], aspect: 1.3333")
    for folder in ("meshes", "textures"):
        (tmp_path / folder).symlink_to(BUILTIN / folder)
    file = tmp_path / "wide.yaml"
    file.write_text(text)
    experiment = find_experiment(str(file))
    assert (experiment.network.width, experiment.network.height) == (128, 96)
    assert Posterior(SceneSpec.load(file), experiment.network).slots == 1
    with pytest.raises(ValueError, match=r"does not fit the camera's aspect 1\.3333"):
        Posterior(SceneSpec.load(file))


@pytest.mark.parametrize("aspect", [0.5, 0.75, 1.0, 1.25, 4 / 3, 1.37, 16 / 9, 2.39])
def test_input_sizes_are_near_the_aspect_and_the_area(aspect: float) -> None:
    height, width = input_size(aspect)
    assert abs(width / height / aspect - 1) < 0.02
    assert 0.5 < height * width / PIXELS < 2
