"""The graph of a single pass gives the answers of the network that it was drawn up from."""

import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from inference.calibrate import Calibration, grain_of
from inference.checkpoint import (
    Checkpoint,
    CheckpointError,
    add_graph,
    load_checkpoint,
    recalibrate,
    save_checkpoint,
)
from inference.distributions import elementary_resultant, resultant_of
from inference.errors import LEVELS, ErrorLaw, unrolled_ellipse
from inference.graph import Graph, GraphError, SinglePass, difference, fingerprint, graph_of
from inference.plain import PlainConfig, PlainPosterior
from inference.posterior import Posterior
from renderer import open_renderer
from renderer.prior import sample
from renderer.spec import SceneSpec

Tiny = Callable[..., Posterior]
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FILE = "network.onnx"


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    calibration = load_checkpoint(CHECKPOINTS / "tabletop").config.calibration
    assert calibration is not None
    return calibration


@pytest.fixture(scope="module")
def made(
    tiny: Tiny, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """A calibrated model of a small network, with its graph."""
    folder = tmp_path_factory.mktemp("made") / "model"
    save_checkpoint(folder, tiny(), name="tiny", calibration=calibration)
    assert load_checkpoint(folder).graph is None
    add_graph(folder)
    return load_checkpoint(folder)


@pytest.fixture
def folder(made: Checkpoint, tmp_path: Path) -> Path:
    """A copy of its folder, to be spoilt."""
    return Path(shutil.copytree(made.folder, tmp_path / "model"))


def pictures(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, 64, 64, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [1, 2, 5, 70])
def test_it_answers_any_number_of_pictures_as_the_network_does(
    made: Checkpoint, batch: int
) -> None:
    image = pictures(batch)
    found, expected = made.infer(image), made.single_pass(image, grain_of(image))
    assert difference(found, expected) < 1e-3
    for field in fields(expected)[1:]:
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), field.name
    assert found.position_within.shape == (batch, 3, len(LEVELS))


def test_a_camera_that_stays_and_no_calibration(tiny: Tiny) -> None:
    single_pass = SinglePass(tiny("objects"), None)
    graph = Graph(graph_of(single_pass, "x"), single_pass)
    image = pictures(3)
    assert difference(graph.infer(image), single_pass(image, grain_of(image))) < 1e-3
    assert graph.made_for == "x"


def test_a_plain_network_has_one_too() -> None:
    torch.manual_seed(0)
    config = PlainConfig(height=64, width=64, channels=8, blocks=1)
    single_pass = SinglePass(PlainPosterior(SceneSpec.load("tabletop"), config).eval(), None)
    graph = Graph(graph_of(single_pass, "x"), single_pass)
    image = pictures(3)
    assert difference(graph.infer(image), single_pass(image, grain_of(image))) < 1e-3


@pytest.mark.parametrize("name", ["tabletop", "tabletop-varied"])
def test_shipped_models_have_one_that_answers_alike(name: str) -> None:
    found = load_checkpoint(CHECKPOINTS / name)
    assert found.graph is not None
    sizes = [(found.folder / file).stat().st_size for file in (FILE, "model.safetensors")]
    assert 10 * sizes[0] < sizes[1], "its weights are those of the checkpoint"
    scene = sample(found.spec, 24, generator=Generator().manual_seed(1))
    with torch.inference_mode():
        image = open_renderer(found.spec, height=128, width=128, supersample=2).render(scene)
        image[12:] += 0.03 * torch.randn(12, 3, 128, 128, generator=Generator().manual_seed(2))
        one, other = found.infer(image), found.single_pass(image, grain_of(image))
    assert torch.equal(one.scene.presence, other.scene.presence)
    assert torch.equal(one.scene.identity, other.scene.identity)
    assert difference(one, other) < 1e-3
    there = one.scene.presence
    torch.testing.assert_close(
        one.scene.position[there], other.scene.position[there], atol=1e-5, rtol=0
    )
    for part in ("position_within", "yaw_within"):
        mine, theirs = getattr(one, part)[there], getattr(other, part)[there]
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_difference_counts_every_number(made: Checkpoint) -> None:
    one = made.infer(pictures(2))
    assert difference(one, one) == 0.0
    covariance = one.position_covariance.clone()
    covariance[1, 2, 0, 1] += 0.25
    assert difference(one, replace(one, position_covariance=covariance)) == pytest.approx(0.25)
    covariance[1, 2, 0, 1] = float("nan")
    assert math.isnan(difference(one, replace(one, position_covariance=covariance)))


def test_it_goes_to_other_processes(made: Checkpoint) -> None:
    image = pictures(2)
    again: Checkpoint = pickle.loads(pickle.dumps(made))
    assert again.graph is not None
    assert difference(again.infer(image), made.infer(image)) == 0.0


def test_new_weights_or_another_calibration_and_it_is_gone(
    folder: Path, made: Checkpoint, tiny: Tiny
) -> None:
    assert made.config.calibration is not None
    kept = (folder / FILE).read_bytes()
    limits = load_checkpoint(CHECKPOINTS / "tabletop").config.novelty
    assert limits is not None
    recalibrate(folder, made.config.calibration, limits)
    assert not (folder / FILE).exists()
    (folder / FILE).write_bytes(kept)
    assert load_checkpoint(folder).graph is not None, "the same calibration: it fits"
    save_checkpoint(folder, tiny(seed=1), name="tiny", calibration=made.config.calibration)
    assert not (folder / FILE).exists()
    (folder / FILE).write_bytes(kept)
    with pytest.raises(CheckpointError, match=r"made for another model; .*training graph"):
        load_checkpoint(folder)


def test_a_damaged_file_is_refused_with_the_mend(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no graph"):
        (folder / FILE).write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match=r"network.onnx: cannot .*training graph .*delete"
        ):
            load_checkpoint(folder)


def test_one_that_answers_otherwise_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.checkpoint.graph_of", lambda *_: (folder / "kept").read_bytes())
    (folder / "kept").write_bytes((folder / FILE).read_bytes())
    for off in (0.1, float("nan")):
        monkeypatch.setattr("inference.checkpoint.difference", lambda *_, off=off: off)
        with pytest.raises(GraphError, match=f"off by {off}"):
            add_graph(folder)
        assert not (folder / FILE).exists()


def test_the_fingerprint_tells_models_apart(calibration: Calibration) -> None:
    other = calibration.model_copy(update={"seed": calibration.seed + 1})
    made = [fingerprint(w, c) for w in ("a", "b") for c in (None, calibration, other)]
    assert len(set(made)) == 6


def test_the_resultant_without_bessel_functions() -> None:
    concentration = torch.logspace(-8, 10, 4001, dtype=torch.float64)
    found, expected = elementary_resultant(concentration), resultant_of(concentration)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)
    # What a standard deviation is made of; from 1e6 on doubles hold no more of it.
    short = (1 - found) / (1 - expected)
    assert (short[concentration < 1e6] - 1).abs().max() < 1e-8
    assert elementary_resultant(torch.zeros(1, dtype=torch.float64)) < 1e-9


def test_ellipses_in_as_many_steps_for_all(generator: Generator) -> None:
    share, factor, rare, far = torch.rand(4, 500, generator=generator)
    law = ErrorLaw(
        torch.ones(500), 0.8 * share, 1 + 30 * factor, 0.2 * rare, 1 + 100 * far,
        torch.zeros(500), torch.ones(500),
    )  # fmt: skip
    torch.testing.assert_close(unrolled_ellipse(law, LEVELS), law.ellipse(LEVELS))
