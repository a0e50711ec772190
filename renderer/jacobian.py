"""The derivative of pictures by every freedom of their scenes, by finite differences.

A gradient needs of each moved picture one number only, its inner product with the upstream
gradient; see `renderer.differentiable`. Least squares needs the pictures themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.appearance import Appearance
from renderer.backend import Renderer, WindowRenderer
from renderer.differences import Differences, Scheme, Steps, freedoms, perturb, plan
from renderer.scene import Scene
from renderer.windows import Pixels, change_windows


def jacobian(
    renderer: Renderer,
    scene: Scene,
    picture: Tensor,
    *,
    step: Steps | None = None,
    scheme: Scheme = "central",
    wanted: Tensor | None = None,
    appearance: Appearance | None = None,
) -> Tensor:
    """How pictures change with everything that can move: `[B, 3K + 1, 3, H, W]` in 1/m and 1/rad.

    The freedoms come as in `renderer.differences`: x and y of each slot, the yaw of each slot, the
    camera's azimuth. What shows in no picture (empty slots, the yaw of round objects, a camera that
    does not move) is zero and costs nothing. Of a moved object only its window is drawn, where the
    renderer knows how; a moved camera is a whole picture.

    Args:
        renderer: draws the scenes.
        scene: B scenes.
        picture: `[B, 3, H, W]`, `renderer.render(scene)`.
        step: how far to move; `Steps.for_size` of the renderer when not given.
        scheme: see `renderer.differences.Scheme`; `random` draws its signs from torch's own
            generator.
        wanted: `[B, 3K + 1]` bool, the freedoms that are asked for; all when not given.
        appearance: of the scenes, where it is not the spec's.
    """
    spec, height, width = renderer.spec, renderer.height, renderer.width
    scene = scene.to(renderer.device)
    free = freedoms(scene, spec.symmetry_orders, azimuth=spec.camera.moves)
    if wanted is not None:
        free = free & wanted.to(free.device)
    moves = plan(free, step or Steps.for_size(spec, height), scheme)
    batch, columns = free.shape
    slopes = picture.new_zeros(batch, columns, height, width, 3)
    whole = torch.ones_like(moves.row, dtype=torch.bool)
    if isinstance(renderer, WindowRenderer):
        whole = ~moves.slot(scene.slots)[1]
        _add_windows(renderer, scene, moves[~whole], picture, appearance, slopes)
    _add_pictures(renderer, scene, moves[whole], picture, appearance, slopes)
    return slopes.permute(0, 1, 4, 2, 3)


class Drawing:
    """A renderer and its derivative: all that least squares over scenes needs to know of it.

    Args:
        renderer: draws.
        step: of the derivative; `Steps.for_size` of the renderer when not given.
    """

    def __init__(self, renderer: Renderer, *, step: Steps | None = None) -> None:
        self.renderer = renderer
        self.step = step or Steps.for_size(renderer.spec, renderer.height)

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` in [0, 1]."""
        return self.renderer.render(scene)

    def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
        """Slopes `[B, 3K + 1, 3, H, W]` of those pictures, as `jacobian` orders them."""
        return jacobian(self.renderer, scene, picture, step=self.step, wanted=wanted)


def _add_pictures(
    renderer: Renderer,
    scene: Scene,
    moves: Differences,
    picture: Tensor,
    appearance: Appearance | None,
    slopes: Tensor,
) -> None:
    if not len(moves):
        return
    looks = None if appearance is None else appearance[moves.row]
    moved = renderer.render(perturb(scene, moves), looks)
    change = (moved - picture[moves.row]) * moves.weight.to(picture)[:, None, None, None]
    slopes.index_put_((moves.row, moves.freedom), change.permute(0, 2, 3, 1), accumulate=True)


def _add_windows(
    renderer: WindowRenderer,
    scene: Scene,
    moves: Differences,
    picture: Tensor,
    appearance: Appearance | None,
    slopes: Tensor,
) -> None:
    if not len(moves):
        return
    height, width = renderer.height, renderer.width
    moved = perturb(scene, moves)
    windows = change_windows(renderer.spec, scene, moves, moved, height, width, appearance)
    looks = None if appearance is None else appearance[moves.row]
    after = renderer.render_windows(moved, windows, looks)
    pixels = Pixels.of(windows)
    before = picture.permute(0, 2, 3, 1)[moves.row[pixels.window], pixels.y, pixels.x]
    change = (after - before) * moves.weight.to(picture)[pixels.window, None]
    column = moves.row * slopes.shape[1] + moves.freedom
    index = (column[pixels.window] * height + pixels.y) * width + pixels.x
    slopes.view(-1, 3).index_add_(0, index, change)
