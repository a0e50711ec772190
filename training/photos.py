"""Sampled scenes as picture files, each with its truth as JSON beside it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from renderer.backend import open_renderer
from renderer.nuisance import photograph
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for


def render_photos(
    spec: SceneSpec,
    out: Path,
    *,
    scenes: int,
    seed: int,
    height: int,
    backend: str = "auto",
    supersample: int = 2,
    nuisance: bool = False,
) -> list[Path]:
    """Writes `scenes` pictures as PNG with the scene beside each; returns the pictures' paths.

    Args:
        spec: the world.
        out: folder, made when missing.
        scenes: how many.
        seed: of the scenes.
        height: of a picture, px; the camera's aspect gives its width.
        backend: that draws.
        supersample: samples a pixel along each axis.
        nuisance: whether all of the spec's nuisance is in them.
    """
    if scenes < 1:
        raise ValueError("--scenes must be at least 1")
    width = max(1, round(height * spec.camera.aspect))
    renderer = open_renderer(
        spec, height=height, width=width, backend=backend, supersample=supersample
    )
    out.mkdir(parents=True, exist_ok=True)
    generator = generator_for("photos", seed)
    digits = max(3, len(str(scenes - 1)))
    paths = []
    for index in range(scenes):
        scene = sample(spec, 1, generator=generator)
        if nuisance:
            pictures = photograph(renderer, scene, generator=generator)
        else:
            pictures = renderer.render_bytes(scene)
        path = out / f"{index:0{digits}d}.png"
        to_image(pictures[0]).save(path)
        write_truth(path.with_suffix(".json"), spec, scene)
        paths.append(path)
    return paths


def to_image(picture: Tensor) -> Image.Image:
    """A picture `[H, W, 3]` uint8 as Pillow has it."""
    return Image.fromarray(torch.as_tensor(picture).contiguous().numpy())


def write_truth(path: Path, spec: SceneSpec, scene: Scene) -> None:
    """Writes what is on the one scene: metres and radians, table frame."""
    record = {"spec": spec.name, **scene.records(spec)[0]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
