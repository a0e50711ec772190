"""Direct descent on the likelihood of images, and the command that sets it beside a network."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from inference.checkpoint import save_checkpoint
from inference.posterior import Posterior, PosteriorConfig
from inference.prior import StepPrior
from renderer import BackendError, Renderer, Scene, SceneSpec, open_renderer
from renderer.opengl import create_context
from renderer.prior import sample
from training.cli import main
from training.compare import best_of, solved
from training.descent import Descent, descend, draw_starts
from training.dreams import generator_for
from training.metrics import yaw_errors

SIZE = 32  # px


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small are only slowed down by sharing them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def backend() -> str:
    """OpenGL where it works: for pictures as few and small as these it is the quicker one."""
    try:
        create_context().free()
    except BackendError:
        return "raycast"
    return "opengl"


@cache
def open_world(*, pairs: bool = False) -> Renderer:
    """The built-in objects; with `pairs`, up to two of them at a time and a camera that moves."""
    spec = SceneSpec.load("objects")
    if pairs:
        data = spec.model_dump(mode="json", exclude_defaults=True)
        data["count"] = {"max": 2}
        data["camera"]["azimuth_deg"] = [-40, 40]
        spec = SceneSpec.build(data, folder=spec.folder)
    return open_renderer(spec, height=SIZE, width=SIZE, backend=backend(), supersample=2)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20160812)


def one_object(class_name: str, x: float, y: float, yaw: float = 0.0) -> Scene:
    scene = Scene.empty(1, 1)
    scene.presence[:] = True
    scene.identity[:] = open_world().spec.class_names.index(class_name)
    scene.position[:] = torch.tensor([x, y])
    scene.yaw[:] = yaw
    return scene


# --- Where it ends.


@pytest.mark.parametrize("class_name", ["cube", "cylinder"])
def test_near_the_truth_it_converges_to_the_truth(
    class_name: str, generator: torch.Generator
) -> None:
    renderer = open_world()
    true = one_object(class_name, 0.1, -0.05, yaw=0.4)
    start = one_object(class_name, 0.13, -0.09, yaw=0.2)
    descent = Descent(steps=60, blur=(2.0, 0.5), position_rate=0.01, yaw_rate=0.05)
    end, _ = descend(renderer, renderer.render(true), start, descent, generator=generator)
    assert float((end.position - true.position).norm()) < 0.005
    error = yaw_errors(renderer.spec, true.identity[0], end.yaw[0], true.yaw[0])
    assert float(error) < 0.05


def test_a_moving_camera_is_found_as_well(generator: torch.Generator) -> None:
    renderer = open_world(pairs=True)
    true = sample(renderer.spec, 2, generator=generator)
    start = dataclasses.replace(true, azimuth=true.azimuth + 0.1)
    descent = Descent(steps=40, blur=(2.0, 0.5), position_rate=1e-3, azimuth_rate=0.02)
    end, _ = descend(renderer, renderer.render(true), start, descent, generator=generator)
    assert float((end.azimuth - true.azimuth).abs().max()) < 0.02


@pytest.mark.parametrize("blurred", [True, False])
def test_only_a_blur_pulls_an_object_to_where_it_does_not_overlap(
    blurred: bool, generator: torch.Generator
) -> None:
    renderer = open_world()
    true, start = one_object("sphere", -0.25, 0.2), one_object("sphere", 0.2, 0.2)
    descent = Descent(steps=60, blur=(16.0, 0.5) if blurred else (0.0, 0.0))
    end, _ = descend(renderer, renderer.render(true), start, descent, generator=generator)
    distance = float((end.position - true.position).norm())
    assert distance < 0.005 if blurred else distance > 0.2


def test_images_and_starts_do_not_disturb_each_other(generator: torch.Generator) -> None:
    renderer = open_world(pairs=True)
    image = renderer.render(sample(renderer.spec, 2, generator=generator))
    start = draw_starts(renderer.spec, 2, 2, generator=generator)
    descent = Descent(steps=4, scheme="central")
    ends, _ = descend(renderer, image, start, descent)
    for b in range(2):
        for s in range(3):
            at = slice(3 * b + s, 3 * b + s + 1)
            end, _ = descend(renderer, image[b : b + 1], start[at], descent)
            assert torch.allclose(end.position, ends.position[at], atol=1e-4)
            assert torch.allclose(end.yaw, ends.yaw[at], atol=1e-3)
            assert torch.allclose(end.azimuth, ends.azimuth[at], atol=1e-4)


def test_what_is_there_and_of_which_class_stays_as_it_was_drawn(
    generator: torch.Generator,
) -> None:
    renderer = open_world(pairs=True)
    image = renderer.render(sample(renderer.spec, 1, generator=generator))
    start = draw_starts(renderer.spec, 1, 3, generator=generator)
    end, _ = descend(renderer, image, start, Descent(steps=2), generator=generator)
    assert torch.equal(end.presence, start.presence)
    assert torch.equal(end.identity, start.identity)
    assert not torch.equal(end.position, start.position)


# --- Starts, and the choice among their ends.


def test_starts_are_the_empty_scene_and_scenes_with_something(generator: torch.Generator) -> None:
    start = draw_starts(open_world(pairs=True).spec, 5, 40, generator=generator)
    count = start.count.view(5, 41)
    assert (count[:, 0] == 0).all()
    assert count[:, 1:].unique().tolist() == [1, 2]
    assert len(start.position.view(5, 41, -1)[:, 1].unique(dim=0)) == 5  # each image has its own


def test_the_best_start_is_the_most_probable_one(generator: torch.Generator) -> None:
    renderer, descent = open_world(), Descent(steps=3, blur=(8.0, 4.0))
    image = renderer.render(sample(renderer.spec, 6, generator=generator))
    start = draw_starts(renderer.spec, 6, 4, generator=generator)
    ends, found = descend(renderer, image, start, descent, generator=generator)
    likelihood, prior = descent.likelihood(1.0, SIZE), StepPrior.of(renderer.spec)

    def log_joint(scene: Scene, image: torch.Tensor) -> torch.Tensor:
        return likelihood.log_prob(image, renderer.render(scene)) + prior.log_prob(scene)

    expected = log_joint(ends, image.repeat_interleave(5, dim=0)).view(6, 5)
    assert torch.allclose(found, expected, rtol=1e-3)
    for first in range(1, 6):
        best = log_joint(best_of(ends, found, first), image)
        assert torch.allclose(best, expected[:, :first].amax(1), rtol=1e-3)


def test_an_empty_table_is_solved(generator: torch.Generator) -> None:
    renderer = open_world()
    true = Scene.empty(1, 1)
    start = draw_starts(renderer.spec, 1, 3, generator=generator)
    found = descend(renderer, renderer.render(true), start, Descent(steps=3), generator=generator)
    assert bool(solved(best_of(*found, 4), true))


def test_solved_asks_for_count_class_and_place() -> None:
    true = one_object("cube", 0.1, 0.1)
    near, far = one_object("cube", 0.14, 0.1), one_object("cube", 0.16, 0.1)
    other, nothing = one_object("sphere", 0.1, 0.1), Scene.empty(1, 1)
    answers = Scene.cat([near, far, other, nothing, nothing])
    truths = Scene.cat([true, true, true, true, nothing])
    assert solved(answers, truths).tolist() == [True, False, False, False, True]


# --- The command.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in a checkpoint folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    network = PosteriorConfig(
        height=48, width=48, channels=8, summary=16, hidden=16, keys=8, blocks=1
    )
    save_checkpoint(folder, Posterior(SceneSpec.load("objects"), network), name="untrained")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


def test_the_command_writes_descent_and_network_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "descent.json"
    arguments = ("--scenes", 3, "--seed", 7, "--restarts", 3, "--steps", 2, "--size", 48)
    where = ("--backend", backend(), "--checkpoint", checkpoint, "--json", file)
    call(monkeypatch, "descend", "objects", *arguments, *where)
    figures = json.loads(file.read_text())
    assert (figures["spec"], figures["scenes"], figures["restarts"]) == ("objects", 3, 3)
    assert (figures["backend"], figures["schedule"]["steps"]) == (backend(), 2)
    assert [point["restarts"] for point in figures["descent"]["by_restarts"]] == [1, 2, 3]
    assert figures["descent"]["by_restarts"][-1].items() <= figures["descent"].items()
    for method in ("descent", "network"):
        assert figures[method]["seconds_per_image"] > 0
        assert figures[method]["cpu_seconds_per_image"] > 0
        assert 0 <= figures[method]["solved"] <= figures[method]["count_accuracy"] <= 1
        assert figures[method]["reconstruction_mse"] > 0
    assert figures["network"]["seconds_per_image_one_by_one"] > 0
    spec = SceneSpec.load("objects")
    true = sample(spec, 3, generator=generator_for("evaluate", 7))
    assert [example["true"] for example in figures["examples"]] == true.records(spec)
    names = {"descent", "descent_of_one_start", "network"}
    for example in figures["examples"]:
        assert example.keys() == {"true", "solved", *names}
        assert example["solved"].keys() == names
    shown = capsys.readouterr().out
    assert "best of 3" in shown and "network" in shown


def test_without_a_checkpoint_there_is_descent_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "descent.json"
    arguments = ("--scenes", 1, "--restarts", 1, "--steps", 1, "--size", SIZE, "--json", file)
    call(monkeypatch, "descend", "objects", *arguments, "--backend", backend())
    assert json.loads(file.read_text())["network"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.yaml",), "no such file"),
        (("objects", "--scenes", "0"), "--scenes must be at least 1"),
        (("objects", "--restarts", "0"), "--restarts must be at least 1"),
        (("objects", "--steps", "0"), "--steps must be at least 1"),
        (("objects", "--size", "0"), "--size must be at least 1"),
        (("objects", "--checkpoint", "nowhere"), "no such folder"),
        (("objects", "--checkpoint", "CHECKPOINT"), "give --size 48"),
        (("OTHER", "--checkpoint", "CHECKPOINT"), "was trained on another world"),
    ],
)
def test_mistakes_are_one_line_that_names_the_mend(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    paths = {"CHECKPOINT": checkpoint, "OTHER": open_world(pairs=True).spec.save(tmp_path)}
    known = [paths.get(value, value) for value in arguments]
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "descend", *known, "--backend", backend())
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert said in lines[-1]
