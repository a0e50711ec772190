"""What the objectives look at, and that they learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference.build import AnyPosterior, NetworkConfig, build_posterior
from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.plain import PlainConfig
from inference.posterior import PosteriorConfig
from renderer import Renderer, Scene, SceneSpec, open_renderer
from renderer.prior import sample
from training.experiments import Experiment, find_experiment, relearning, vary
from training.loop import RunOptions, train
from training.objectives import Batch, Sleep, Wake, WakeConfig, WakeSleep, make_objective

SIZE = 32
CELLS = PosteriorConfig(
    height=SIZE, width=SIZE, channels=8, summary=16, hidden=16, keys=8, blocks=1
)
PLAIN = PlainConfig(height=SIZE, width=SIZE, channels=8, summary=16, hidden=16)


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("objects")


@pytest.fixture(scope="module")
def renderer(spec: SceneSpec) -> Renderer:
    return open_renderer(spec, height=SIZE, width=SIZE, supersample=2, backend="raycast")


@pytest.fixture
def batch(spec: SceneSpec, renderer: Renderer) -> Batch:
    scene = sample(spec, 6, generator=torch.Generator().manual_seed(5))
    image = renderer.render(scene)
    return Batch(image, scene, image)


def network(spec: SceneSpec, config: NetworkConfig = CELLS) -> AnyPosterior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_posterior(spec, config)


def losses(objective: object, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    assert callable(objective)
    generator = torch.Generator().manual_seed(2)
    found = objective(batch, part=0.5, tolerance=0.0, generator=generator)
    return found.loss, found.values


@pytest.mark.parametrize("estimator", ["enumerate", "nvil", "rloo", "vimco"])
def test_awake_nobody_looks_at_what_images_show(
    spec: SceneSpec, renderer: Renderer, batch: Batch, estimator: str
) -> None:
    config = WakeConfig.model_validate({"estimator": estimator, "samples": 2, "draws": 2})
    objective = Wake(network(spec), config, renderer)
    loss, values = losses(objective, batch)
    told = Batch(torch.zeros_like(batch.dream), Scene.empty(6, spec.count.max), batch.image)
    again, _ = losses(objective, told)
    assert torch.equal(loss, again)
    assert bool(values["wake/bound"].isfinite())
    loss.backward()
    gradients = [parameter.grad for parameter in objective.posterior.parameters()]
    assert any(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("estimator", ["nvil", "rloo", "vimco"])
def test_the_plain_network_learns_by_scores(
    spec: SceneSpec, renderer: Renderer, batch: Batch, estimator: str
) -> None:
    config = WakeConfig.model_validate({"estimator": estimator, "samples": 2})
    loss, _ = losses(Wake(network(spec, PLAIN), config, renderer), batch)
    loss.backward()


def test_the_plain_network_cannot_enumerate(spec: SceneSpec, renderer: Renderer) -> None:
    with pytest.raises(ValueError, match="choose nvil, rloo or vimco"):
        Wake(network(spec, PLAIN), WakeConfig(), renderer)


def test_wake_sleep_is_both(spec: SceneSpec, renderer: Renderer, batch: Batch) -> None:
    posterior = network(spec)
    both = make_objective("wake-sleep", posterior, WakeConfig(), lambda: renderer)
    assert isinstance(both, WakeSleep)
    loss, values = losses(both, batch)
    asleep, _ = losses(Sleep(posterior), batch)
    torch.testing.assert_close(loss, asleep + values["wake/loss"])
    assert {"sleep/loss", "wake/loss", "wake/bound"} <= values.keys()


@pytest.mark.parametrize("name", ["sleep", "supervised"])
def test_who_does_not_compare_opens_no_decoder(spec: SceneSpec, name: str) -> None:
    def refuse() -> Renderer:
        raise AssertionError("opened")

    assert isinstance(make_objective(name, network(spec), WakeConfig(), refuse), Sleep)  # type: ignore[arg-type]


def test_one_picture_pulls_no_harder_than_allowed(
    spec: SceneSpec, renderer: Renderer, batch: Batch
) -> None:
    gradients = []
    for pull in (1e-3, 1e9):
        objective = Wake(network(spec), WakeConfig(estimator="rloo", pull=pull), renderer)
        position = batch.scene.position.clone().requires_grad_()
        picture = objective._decode(replace(batch.scene, position=position))
        (1000 * (picture - 0.5).square().sum()).backward()
        assert position.grad is not None
        gradients.append(position.grad.flatten(1).norm(dim=1)[batch.scene.presence[:, 0]])
    bound, free = gradients
    assert bool((bound <= 1e-3 / len(batch.image) * 1.001).all())
    assert bool((free > bound).all())


def test_schedules_fall_evenly_in_their_logarithm() -> None:
    config = WakeConfig(std=(0.4, 0.1), blur=(4.0, 1.0), until=0.5)
    found = [config.likelihood(part) for part in (0.0, 0.25, 0.5, 1.0)]
    assert [round(one.std, 6) for one in found] == [0.4, 0.2, 0.1, 0.1]
    assert [round(one.blur, 6) for one in found] == [4.0, 2.0, 1.0, 1.0]


def test_an_objective_brings_its_settings() -> None:
    assert find_experiment("objects").objective == "sleep"
    elbo = find_experiment("objects", "elbo")
    assert (elbo.objective, elbo.name, elbo.wake.turns) == ("elbo", "objects", 8)
    assert find_experiment("tabletop", "wake-sleep").objective == "wake-sleep"
    supervised = find_experiment("tabletop-fixed", "supervised")
    assert supervised.network == PlainConfig(height=64, width=64, order="given")


def test_a_model_relearns_another_look_of_its_world(tmp_path: Path) -> None:
    """It keeps its network and takes the experiment's world; other objects are refused."""
    network = PosteriorConfig(height=64, width=64, channels=8, hidden=16)
    save_checkpoint(tmp_path, build_posterior(SceneSpec.load("tabletop"), network), name="known")
    start = load_checkpoint(tmp_path)
    varied = relearning(find_experiment("tabletop-varied"), start)
    assert varied.spec == "tabletop-varied"
    assert isinstance(varied.network, PosteriorConfig)
    assert varied.network.sharpest > network.sharpest, "it may learn to be surer than it was"
    assert varied.network.model_copy(update={"sharpest": network.sharpest}) == network
    build_posterior(SceneSpec.load(varied.spec), varied.network).load_state_dict(
        start.posterior.state_dict()
    )
    with pytest.raises(ValueError, match=r"--start .*knows cup, pan, plate"):
        relearning(find_experiment("objects"), start)


def test_networks_and_estimators_can_be_exchanged() -> None:
    elbo = find_experiment("objects", "elbo")
    assert vary(elbo, None, None) == elbo
    varied = vary(elbo, "plain-any", "nvil")
    size = {"height": elbo.network.height, "width": elbo.network.width}
    assert varied.network == PlainConfig(order="any", **size)
    assert varied.wake == elbo.wake.model_copy(update={"estimator": "nvil"})
    assert isinstance(vary(varied, "cells", None).network, PosteriorConfig)
    with pytest.raises(ValueError, match="choose --objective elbo or wake-sleep"):
        vary(find_experiment("objects"), None, "rloo")


def test_a_run_from_images_goes_on_where_it_was(tmp_path: Path) -> None:
    """Bit for bit, as dreams do; the search draws nothing at random that is not in the seed."""
    tiny = Experiment(
        name="tiny", spec="objects", objective="elbo", network=CELLS, supersample=1,
        backend="raycast", batch=4, warmup=2, wake=WakeConfig(samples=2, draws=1),
    )  # fmt: skip
    weights = []
    for name, stops in (("whole", (6,)), ("halves", (3, 6))):
        for steps in stops:
            options = RunOptions(
                out=tmp_path / name, seed=1, steps=steps, threads=1, evaluate_every=100
            )
            if steps == 3:
                halfway(tiny, options)
            else:
                train(tiny, options)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def halfway(experiment: Experiment, options: RunOptions) -> None:
    """The first steps of a longer run, which is then told to stop."""
    from training.scene_run import SceneRun

    run = SceneRun(experiment, replace(options, steps=6))
    told: list[int] = []
    objective, calls = run.objective, 0

    def counted(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == options.steps:
            told.append(1)
        return objective(*arguments, **named)  # type: ignore[arg-type]

    run.objective = counted  # type: ignore[assignment]
    run.go(told)
