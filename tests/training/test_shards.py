"""Scenes that were drawn in advance."""

from pathlib import Path

import pytest
import torch

from inference.posterior import PosteriorConfig
from renderer.spec import SceneSpec
from training.experiments import Experiment
from training.loop import RunOptions, train
from training.scene_run import SceneRun
from training.shard_drawing import draw_elsewhere, draw_shards, manifest_for
from training.shards import ShardError, Shards, digest_of, draw_shard, files_of, shard_path
from training.state import StateError, read_meta

TINY = Experiment(
    name="tiny",
    spec="tabletop",
    network=PosteriorConfig(
        height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
    ),
    supersample=1,
    backend="raycast",
    batch=4,
    warmup=2,
)
WORLD = SceneSpec.load("tabletop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    manifest = manifest_for(TINY, out, scenes=20, per_shard=8, backend="raycast")
    assert draw_shards(WORLD, manifest, out, processes=0) == 3
    return out


def test_what_was_stopped_goes_on_and_is_the_same_wherever_it_is_drawn(folder: Path) -> None:
    before = shard_path(folder, 1).read_bytes()
    shard_path(folder, 1).write_bytes(before[:1000])  # as a full disk would leave it
    manifest = manifest_for(TINY, folder, scenes=20, per_shard=8)
    assert manifest.backend == "raycast", "the one of the shards that are there"
    assert draw_shards(WORLD, manifest, folder, processes=0) == 1
    assert shard_path(folder, 1).read_bytes() == before
    assert draw_elsewhere(files_of(WORLD), manifest, 1) == before, "from the files alone"
    assert draw_shards(WORLD, manifest, folder, processes=0) == 0


def test_every_scene_comes_once_before_any_comes_again_in_another_order(folder: Path) -> None:
    shards = Shards(folder, batch=4, seed=0)
    assert len(shards) == 5
    first, second = ([shards[i + 5 * epoch].scene[4] for i in range(5)] for epoch in range(2))
    everything = torch.cat(first)
    assert len(everything.unique()) == 20
    assert torch.equal(everything.sort().values, torch.cat(second).sort().values)
    assert not torch.equal(everything, torch.cat(second))


def test_a_team_sees_together_what_one_process_sees(folder: Path) -> None:
    whole = Shards(folder, batch=4, seed=0)[3]
    halves = [Shards(folder, batch=4, seed=0, rank=rank, size=2)[3] for rank in range(2)]
    assert torch.equal(torch.cat([half.pictures for half in halves]), whole.pictures)
    assert torch.equal(torch.cat([half.scene[2] for half in halves]), whole.scene[2])


def test_another_world_another_size_and_missing_shards_are_told(
    folder: Path, tmp_path: Path
) -> None:
    shards = Shards(folder, batch=4, seed=0)
    shards.check(WORLD, 32, 32, 1)
    with pytest.raises(ShardError, match=r"another world than objects: .* draw them again"):
        shards.check(SceneSpec.load("objects"), 32, 32, 1)
    with pytest.raises(ShardError, match=r"32 x 32 px and 1 .* the network wants 64 x 64"):
        shards.check(WORLD, 64, 64, 1)
    with pytest.raises(ShardError, match="no shard holds a batch of 16"):
        Shards(folder, batch=16, seed=0)
    with pytest.raises(ShardError, match=r"is no folder of shards.*training shards"):
        Shards(tmp_path, batch=4, seed=0)
    manifest = manifest_for(TINY, tmp_path, scenes=8, per_shard=8, backend="raycast")
    draw_shards(WORLD, manifest, tmp_path, processes=0)
    shard_path(tmp_path, 0).unlink()
    with pytest.raises(ShardError, match="1 of 1 shards are missing"):
        Shards(tmp_path, batch=4, seed=0)
    other = manifest.model_copy(update={"seed": 1})
    with pytest.raises(ShardError, match="shards with another seed"):
        draw_shards(WORLD, other, tmp_path, processes=0)


def test_the_digest_knows_the_meshes_and_not_the_place(tmp_path: Path) -> None:
    tabletop = SceneSpec.load("tabletop")
    saved = tabletop.save(tmp_path)
    assert digest_of(SceneSpec.load(saved)) == digest_of(tabletop)
    mesh = next(tmp_path.rglob("cup.obj"))
    mesh.write_text(mesh.read_text() + "# another\n")
    assert digest_of(SceneSpec.load(saved)) != digest_of(tabletop)


def test_a_run_learns_from_shards_and_goes_on_with_the_same_ones_only(
    folder: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    options = RunOptions(out=tmp_path, steps=3, workers=0, threads=1, shards=folder)
    try:
        train(TINY, options)
        assert read_meta(tmp_path / "training" / "state.safetensors")["step"] == 3
        run = SceneRun(TINY, RunOptions(out=tmp_path / "new", steps=3, shards=folder))
        batch = next(run.batches(0, 1))
        assert run.workers == 0, "there is nothing to draw"
        with pytest.raises(StateError, match="another shards"):
            SceneRun(TINY, RunOptions(out=tmp_path, steps=3))
    finally:
        torch.set_num_threads(threads)
    drawn = Shards(folder, batch=4, seed=0)[0]
    assert torch.equal(batch.scene.position, drawn.scene[2])
    assert torch.allclose(batch.dream, drawn.pictures.permute(0, 3, 1, 2) / 255)


@pytest.mark.slow
def test_processes_draw_the_same(folder: Path, tmp_path: Path) -> None:
    manifest = manifest_for(TINY, folder, scenes=20, per_shard=8)
    told: list[int] = []
    assert draw_shards(WORLD, manifest, tmp_path, processes=2, tick=told.append) == 3
    assert sum(told) == 20
    for index in range(3):
        assert shard_path(tmp_path, index).read_bytes() == shard_path(folder, index).read_bytes()


@pytest.mark.slow
def test_ray_draws_the_same(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'airscene[ray]'")
    manifest = manifest_for(TINY, folder, scenes=20, per_shard=8)
    assert draw_shards(WORLD, manifest, tmp_path, ray="local") == 3
    assert draw_shard(WORLD, manifest, 2) == shard_path(tmp_path, 2).read_bytes()
