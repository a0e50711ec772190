"""Draws shards: by processes of this machine, or by Ray on all machines of a cluster."""

from __future__ import annotations

import atexit
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from inference.folder import write_atomically
from renderer.choice import choose_backend
from renderer.cpus import available_cpus
from renderer.spec import SceneSpec
from training.experiments import Experiment
from training.shards import (
    MANIFEST,
    PER_SHARD,
    Manifest,
    ShardError,
    begin,
    digest_of,
    draw_shard,
    files_of,
    missing,
    read_manifest,
    shard_path,
)

AHEAD = 2  # shards under way for each process: what is drawn waits for nobody

Tick = Callable[[int], None]


def manifest_for(
    experiment: Experiment,
    out: Path,
    *,
    scenes: int,
    seed: int = 0,
    per_shard: int = PER_SHARD,
    backend: str = "auto",
) -> Manifest:
    """What is to be drawn for an experiment; a backend that shards have already stays.

    Raises:
        SpecError: the SceneSpec cannot be used.
        ValueError: no scenes.
    """
    if scenes < 1 or per_shard < 1:
        raise ValueError("--scenes and --per-shard must be at least 1")
    spec, network = SceneSpec.load(experiment.spec), experiment.network
    if backend == "auto" and (out / MANIFEST).exists():
        backend = read_manifest(out).backend
    if backend == "auto":
        form = {"height": network.height, "width": network.width, "slots": None}
        backend = choose_backend(
            spec,
            {**form, "supersample": experiment.supersample},  # type: ignore[typeddict-item]
            patience=60.0,
        )
    return Manifest(
        world=spec.name,
        digest=digest_of(spec),
        height=network.height,
        width=network.width,
        supersample=experiment.supersample,
        backend=backend,
        seed=seed,
        scenes=scenes,
        per_shard=per_shard,
    )


def draw_shards(
    spec: SceneSpec,
    manifest: Manifest,
    out: Path,
    *,
    processes: int | None = None,
    ray: str | None = None,
    tick: Tick = lambda scenes: None,
) -> int:
    """Draws what is missing; returns how many shards that were.

    Args:
        spec: the world.
        manifest: what to draw.
        out: folder; what lies there already is not drawn again.
        processes: of this machine; as many as cores when not given, 0 to draw in this one.
        ray: address of a Ray cluster, `auto` for the one that this machine belongs to, `local` to
            start one here; without, no Ray.
        tick: told of scenes that are done.

    Raises:
        ShardError: the folder holds other shards, the disk is too small, or Ray is not installed.
    """
    begin(out, manifest)
    todo = list(missing(out, manifest))
    needed = sum(manifest.size_of(index) for index in todo) * (manifest.bytes // manifest.scenes)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ShardError(
            f"{out}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; choose "
            "another disk, or fewer --scenes"
        )
    tick(manifest.scenes - sum(manifest.size_of(index) for index in todo))
    files = files_of(spec)
    if ray is not None:
        drawn = _by_ray(files, manifest, todo, ray)
    elif processes == 0:
        drawn = ((index, draw_shard(spec, manifest, index)) for index in todo)
    else:
        drawn = _by_processes(files, manifest, todo, processes or available_cpus())
    for index, content in drawn:
        write_atomically(shard_path(out, index), content)
        tick(manifest.size_of(index))
    return len(todo)


def draw_elsewhere(files: dict[str, bytes], manifest: Manifest, index: int) -> bytes:
    """Shard `index` in a process that has nothing of the world but its files."""
    torch.set_num_threads(1)
    return draw_shard(_world(tuple(files.items()), manifest.world), manifest, index)


@lru_cache(maxsize=1)
def _world(files: tuple[tuple[str, bytes], ...], name: str) -> SceneSpec:
    folder = Path(mkdtemp(prefix="airscene-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, content in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return SceneSpec.load(folder / f"{name}.yaml")


def _by_processes(
    files: dict[str, bytes], manifest: Manifest, todo: list[int], processes: int
) -> Iterator[tuple[int, bytes]]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_ignore_signals) as executor:
        waiting, under_way = iter(todo), {}
        try:
            while True:
                for index in waiting:
                    under_way[executor.submit(draw_elsewhere, files, manifest, index)] = index
                    if len(under_way) >= AHEAD * processes:
                        break
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _by_ray(
    files: dict[str, bytes], manifest: Manifest, todo: list[int], address: str
) -> Iterator[tuple[int, bytes]]:
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    try:
        # One core a task, again if its machine is lost: a shard is the same wherever it is drawn.
        task = ray.remote(num_cpus=1, max_retries=3)(draw_elsewhere)
        world, what = ray.put(files), ray.put(manifest)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, under_way = iter(todo), {}
        while True:
            for index in waiting:
                under_way[task.remote(world, what, index)] = index
                if len(under_way) >= most:
                    break
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), num_returns=1)
            for reference in done:
                yield under_way.pop(reference), ray.get(reference)
    finally:
        if started:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ShardError(
            "--ray: Ray is not installed; install it by pip install 'airscene[ray]', or leave "
            "--ray out"
        ) from None
    return ray


def _ignore_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it ends it
