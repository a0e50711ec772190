"""The render as a torch.autograd.Function, with finite differences for a derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderer.appearance import Appearance
from renderer.backend import Renderer, WindowRenderer
from renderer.differences import (
    Differences,
    Scheme,
    Steps,
    contract,
    freedoms,
    perturb,
    plan,
)
from renderer.scene import Scene
from renderer.windows import Pixels, change_windows

# Values of the moved pictures that are in memory at once, by kind of device: 32 MiB of float32, and
# 512 MiB on a card, which wants thousands of pictures at a time.
CHUNK_VALUES = {"cpu": 1 << 23, "cuda": 1 << 27}
# Moved pictures are asked for in multiples of this, where there are enough: backends draw that
# many at a time, and fill up what is missing.
CHUNK_MULTIPLE = 64


def differentiable_render(
    renderer: Renderer,
    scene: Scene,
    *,
    step: Steps | float | None = None,
    scheme: Scheme = "forward",
    generator: torch.Generator | None = None,
    appearance: Appearance | None = None,
) -> Tensor:
    """Pictures `[B, 3, H, W]` in [0, 1], with gradients to where everything stands.

    The picture is `renderer.render(scene)`. On the way back, every freedom that needs a gradient
    (of `scene.position`, `scene.yaw`, `scene.azimuth`) is moved by a step and drawn again, as in
    appendix H.1, and only its inner product with the upstream gradient is kept. Of a moved
    object's picture only the window that can change is drawn, by a renderer that knows how; a
    moved camera changes everything. Slots without an object, and the yaw of objects that show no
    turn, get gradient zero and cost nothing; so does a scene whose upstream gradient is zero.
    Presence and identity get no gradient. Not twice differentiable. Scenes are moved to the
    renderer's device, gradients come back to where the scenes lie.

    Pictures have 8 bits a channel and a few samples a pixel. A step that moves an edge by a small
    part of a pixel changes most pixels not at all and some by a whole grey level or, without
    supersampling, by the edge's whole contrast; divided by the step, that is noise larger than
    the gradient. Measured on positions of the tabletop at 64 px, against finely drawn pictures: the
    paper's 1e-4 m is off by 3 to 4 times the gradient's own size with one sample a pixel and by
    0.6 to 0.7 with 4 x 4; the default, three quarters of a pixel, by 0.15 and 0.03 (central). What
    a step skips over is blurred by its length, so a loss on blurred pictures bears longer steps.

    What picture and gradient cost together is measured in docs/rendering.md: by rays, three objects
    about as much as two and a half pictures by `forward` or `random`, and one more for the camera.

    How far off, as a share of the gradient's size, for 60 scenes of three objects against finely
    drawn pictures, positions, yaws and azimuths: 0.10, 0.84 and 0.07 by `forward` and 0.05, 0.37
    and 0.02 by `central` for the squared error of blurred pictures; 0.37, 0.86 and 0.42 against
    0.17, 0.40 and 0.18 where neighbouring pixels pull apart. A turn changes little, and not
    evenly: where a yaw has to be right, take `central`, or `random` and many of them.

    Args:
        renderer: draws the scenes.
        scene: B scenes.
        step: how far to move; a number is the step of the position in metres, with the others
            in their default proportion to it; `Steps.for_size` of the renderer when not given.
        scheme: `central`, `forward` or `random`; see `renderer.differences.Scheme`.
        generator: of the signs of `random`, on any device; they are drawn here, so going back twice
            gives the same gradient twice.
        appearance: of the scenes, where it is not the spec's; gets no gradient.

    Raises:
        ValueError: the step is not above zero, or no scheme has that name.
    """
    wanted = {name: getattr(scene, name).requires_grad for name in ("position", "yaw", "azimuth")}
    if not (torch.is_grad_enabled() and any(wanted.values())):
        return renderer.render(scene, appearance)
    scene = scene.to(renderer.device)  # from here on all is on one device
    appearance = None if appearance is None else appearance.to(renderer.device)
    free = freedoms(scene, renderer.spec.symmetry_orders, **wanted)
    differences = plan(free, _steps(renderer, step), scheme, generator=generator)
    picture: Tensor = _Render.apply(  # type: ignore[no-untyped-call]
        scene.position,
        scene.yaw,
        scene.azimuth,
        scene.presence,
        scene.identity,
        renderer,
        differences,
        appearance,
    )
    return picture


def _steps(renderer: Renderer, step: Steps | float | None) -> Steps:
    if isinstance(step, Steps):
        return step
    default = Steps.for_size(renderer.spec, renderer.height)
    return default if step is None else default.scaled(step / default.position)


def picture_changes(
    renderer: Renderer,
    scene: Scene,
    differences: Differences,
    picture: Tensor,
    upstream: Tensor,
    appearance: Appearance | None = None,
) -> Tensor:
    """`[N]`: inner products of the upstream gradient with what each move changes in the picture.

    Draws the moved scenes as whole pictures, the obvious way. For moves of the camera, for
    renderers that know no other, and as the slow twin of `window_changes`.

    Args:
        renderer: draws the scenes.
        scene: B scenes.
        differences: N moves of them.
        picture: `[B, 3, H, W]`, of the scenes as they are.
        upstream: `[B, 3, H, W]`, gradient of the loss to `picture`.
        appearance: of the scenes, where it is not the spec's.
    """
    values = CHUNK_VALUES[picture.device.type]
    multiples = values // (picture.shape[1:].numel() * CHUNK_MULTIPLE)
    changes = [picture.new_zeros(0)]
    before, weight = (_channels_last(value).flatten(1) for value in (picture, upstream))
    for part in differences.split(max(1, multiples) * CHUNK_MULTIPLE):
        looks = None if appearance is None else appearance[part.row]
        after = _channels_last(renderer.render(perturb(scene, part), looks)).flatten(1)
        changes.append(torch.linalg.vecdot(weight[part.row], after - before[part.row]))
    return torch.cat(changes)


def window_changes(
    renderer: WindowRenderer,
    scene: Scene,
    differences: Differences,
    picture: Tensor,
    upstream: Tensor,
    appearance: Appearance | None = None,
) -> Tensor:
    """As `picture_changes`, but of a moved object's picture draws only what its move can change.

    Args:
        renderer: draws the scenes.
        scene: B scenes.
        differences: N moves of them.
        picture: `[B, 3, H, W]`, of the scenes as they are.
        upstream: `[B, 3, H, W]`, gradient of the loss to `picture`.
        appearance: of the scenes, where it is not the spec's.
    """
    height, width = renderer.height, renderer.width
    of_object = differences.slot(scene.slots)[1]
    changes = picture.new_zeros(len(differences))
    of_camera, of_object = (mask.nonzero()[:, 0] for mask in (~of_object, of_object))
    if len(of_camera):
        camera = differences[of_camera]
        changes[of_camera] = picture_changes(renderer, scene, camera, picture, upstream, appearance)
    moves = differences[of_object]
    if not len(moves):
        return changes
    moved = perturb(scene, moves)
    windows = change_windows(renderer.spec, scene, moves, moved, height, width, appearance)
    looks = None if appearance is None else appearance[moves.row]
    # Pixels as rows, so that a pixel is found by one index.
    before, weight = (_channels_last(value).reshape(-1, 3) for value in (picture, upstream))
    values = CHUNK_VALUES[picture.device.type]
    size = max(1, values // int(3 * windows[:, 2:].prod(dim=1).amax().clamp_min(1)))
    parts = []
    for start in range(0, len(moves), size):
        part = slice(start, start + size)
        dressed = None if looks is None else looks[part]
        after = renderer.render_windows(moved[part], windows[part], dressed)
        pixels = Pixels.of(windows[part])
        index = (moves.row[part][pixels.window] * height + pixels.y) * width + pixels.x
        product = torch.linalg.vecdot(weight[index], after - before[index])
        parts.append(product.new_zeros(len(windows[part])).index_add_(0, pixels.window, product))
    changes[of_object] = torch.cat(parts)
    return changes


def _channels_last(pictures: Tensor) -> Tensor:
    """Pictures `[B, 3, H, W]` as `[B, H, W, 3]`: as renderers make them, so mostly no copy."""
    return pictures.permute(0, 2, 3, 1).contiguous()


class _Render(torch.autograd.Function):
    """Renders; moves and renders again on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        position: Tensor,
        yaw: Tensor,
        azimuth: Tensor,
        presence: Tensor,
        identity: Tensor,
        renderer: Renderer,
        differences: Differences,
        appearance: Appearance | None,
    ) -> Tensor:
        picture = renderer.render(Scene(presence, identity, position, yaw, azimuth), appearance)
        ctx.save_for_backward(presence, identity, position, yaw, azimuth, picture)
        ctx.renderer, ctx.differences, ctx.appearance = renderer, differences, appearance
        return picture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, picture = ctx.saved_tensors
        scene = Scene(*tensors)
        # Samples that a loss leaves out (masked, outweighed) need not be drawn again.
        upstream = upstream.contiguous(memory_format=torch.channels_last)
        counts = _channels_last(upstream).flatten(1).abs().amax(dim=1) != 0
        differences = ctx.differences[counts[ctx.differences.row]]
        drawn = (ctx.renderer, scene, differences, picture, upstream, ctx.appearance)
        # Other renderers, stand-ins in tests among them, may know whole pictures only.
        windowed = isinstance(ctx.renderer, WindowRenderer)
        changes = (window_changes if windowed else picture_changes)(*drawn)
        gradients = contract(differences, changes.to(scene.azimuth), len(scene), scene.slots)
        return *gradients, None, None, None, None, None
