"""Photos to learn from and photos to be held to, and which model is kept."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference.build import AnyPosterior, build_posterior
from inference.plain import PlainConfig
from inference.posterior import PosteriorConfig
from renderer import Renderer, SceneSpec, open_renderer
from training.photos import render_photos
from training.unlabelled import Keeper, Photos, matched_std

SIZE = 32
CELLS = PosteriorConfig(
    height=SIZE, width=SIZE, channels=8, summary=16, hidden=16, keys=8, blocks=1
)
PLAIN = PlainConfig(height=SIZE, width=SIZE, channels=8, summary=16, hidden=16)
PHOTOS = 23


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("objects")


@pytest.fixture(scope="module")
def renderer(spec: SceneSpec) -> Renderer:
    return open_renderer(spec, height=SIZE, width=SIZE, supersample=1, backend="raycast")


@pytest.fixture(scope="module")
def folder(spec: SceneSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    render_photos(spec, folder, scenes=PHOTOS, seed=4, height=64, backend="raycast", supersample=1)
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture(scope="module")
def different(folder: Path) -> int:
    """How many of them are not alike: an empty table is always the same."""
    return len({path.read_bytes() for path in folder.glob("*.png")})


@pytest.fixture
def photos(folder: Path) -> Photos:
    return Photos.load(folder, height=SIZE, width=SIZE)


def network(spec: SceneSpec, config: PosteriorConfig | PlainConfig = CELLS) -> AnyPosterior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_posterior(spec, config)


def rows(photos: Tensor) -> set[bytes]:
    return {photo.numpy().tobytes() for photo in photos}


def test_a_fifth_is_held_out_whatever_the_files_are_called(
    folder: Path, photos: Photos, different: int, tmp_path: Path
) -> None:
    assert len(photos.held_out) == -(-different // 5)
    assert len(photos.learned) + len(photos.held_out) == different
    assert photos.learned.shape[1:] == (3, SIZE, SIZE)
    for index, path in enumerate(sorted(folder.glob("*.png"), reverse=True)):
        (tmp_path / f"renamed-{index}.png").write_bytes(path.read_bytes())
    (tmp_path / "twice.png").write_bytes((folder / "000.png").read_bytes())
    again = Photos.load(tmp_path, height=SIZE, width=SIZE)
    assert again.sha256 == photos.sha256
    assert rows(again.held_out) == rows(photos.held_out)
    assert rows(again.learned).isdisjoint(rows(again.held_out))


def test_only_those_to_learn_from_are_learned_from(photos: Photos) -> None:
    batch = photos.batch(200, torch.Generator().manual_seed(1))
    assert rows((255 * batch).round().byte()) == rows(photos.learned)


def test_folders_that_cannot_be_used_say_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        Photos.load(tmp_path / "nowhere", height=SIZE, width=SIZE)
    with pytest.raises(ValueError, match=r"holds 0 PNG.*at least 10"):
        Photos.load(tmp_path, height=SIZE, width=SIZE)
    for path in folder.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(ValueError, match=r"broken\.png: .*damaged"):
        Photos.load(tmp_path, height=SIZE, width=SIZE)


@pytest.mark.parametrize("config", [CELLS, PLAIN])
def test_only_a_better_model_is_kept(
    spec: SceneSpec, renderer: Renderer, photos: Photos, config: PosteriorConfig | PlainConfig
) -> None:
    """Models that see something everywhere, or nothing anywhere, are both wrong by much."""

    def sure(bias: float) -> AnyPosterior:
        """Positive: that there is something."""
        model = network(spec, config)
        bias = -bias if config is CELLS else bias  # which have a logit of "nothing"
        for name, parameter in model.named_parameters():
            if name in ("cell.nothing.bias", "head.bias"):
                parameter.data[0] += bias
        return model

    start = sure(40.0)
    keeper = Keeper(start, photos.held_out, renderer.render, 1, std=0.2)
    torch.testing.assert_close(keeper.offer(start, 1), keeper.first)  # the same draws each time
    assert keeper.best_step == 0  # no gain is not better
    worse = []
    for step, bias in ((2, 0.0), (3, 40.0), (4, -40.0)):
        before = keeper.bounds
        gain = keeper.offer(sure(bias), step) - before
        better = bool(gain.mean() > gain.std() / len(gain) ** 0.5)
        assert (keeper.best_step == step) == better
        torch.testing.assert_close(keeper.bounds, before + gain if better else before)
        torch.testing.assert_close(keeper.measure(keeper.best), keeper.bounds)
        worse.append(not better)
    assert any(worse) and not all(worse)
    assert keeper.bounds.mean() > keeper.first.mean()


def test_the_likelihood_is_as_wide_as_the_renderer_is_wrong(
    spec: SceneSpec, renderer: Renderer, photos: Photos
) -> None:
    blind = network(spec)
    empty = torch.zeros_like(photos.learned)
    dark = matched_std(blind, empty, renderer.render, 1)
    same = (255 * renderer.render(blind.eval().infer(empty.float()).scene)).round().byte()
    assert dark > 0.1
    assert matched_std(blind, same, renderer.render, 1) < dark / 2
