"""The loop that one would write with `mujoco.Renderer`: the reference of the forward renders."""

from __future__ import annotations

from unittest import mock

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from numpy.typing import NDArray

from renderer import BackendError, Scene, SceneSpec, opengl
from renderer.mjcf import build_model

# MuJoCo's own choices: its renderer shows the geoms of groups 0 to 2 and hides the others.
SHOWN, HIDDEN = 0, 3


class PlainLoop:
    """Draws scenes one after the other with MuJoCo's renderer, as its tutorial does.

    It is given what a careful user would give it: poses of a whole batch at a time, geoms that are
    not there hidden so that they cost nothing, no `mj_forward` for each picture, one array for all
    pictures, and the OpenGL library that our own backend uses.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        samples: of OpenGL's own anti-aliasing, a pixel; 1 is none.

    Raises:
        BackendError: this machine has no headless OpenGL, or not for pictures as large.
    """

    def __init__(self, spec: SceneSpec, *, height: int, width: int, samples: int) -> None:
        # By itself, MuJoCo takes the library that MUJOCO_GL names and else one with windows.
        context = opengl.create_context()
        context.free()
        self._scene_model = build_model(spec)
        self._model = self._scene_model.model
        self._model.vis.quality.offsamples = samples if samples > 1 else 0
        self._model.vis.global_.offheight, self._model.vis.global_.offwidth = height, width
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)  # once, for the lights
        # Where MUJOCO_GL switches OpenGL off, MuJoCo lacks even the name.
        with mock.patch.object(gl_context, "GLContext", type(context), create=True):
            try:
                self._renderer = mujoco.Renderer(self._model, height=height, width=width)
            except mujoco.FatalError as error:
                raise BackendError(f"OpenGL cannot draw {height} px here ({error})") from None
        self._size = (height, width)

    def render_bytes(self, scene: Scene) -> NDArray[np.uint8]:
        """Pictures `[B, H, W, 3]` of a batch of scenes."""
        model, data = self._model, self._data
        built = self._scene_model
        position, rotation = (pose.numpy() for pose in built.geom_poses(scene))
        camera_position, camera_axes = (pose.numpy() for pose in built.camera_poses(scene))
        classes = len(self._scene_model.spec.objects)
        slots = (model.ngeom - 1) // classes
        identity = scene.identity.numpy()[..., None] == np.arange(classes)
        shown = (identity & scene.presence.numpy()[..., None]).reshape(len(scene), slots * classes)
        pictures = np.empty((len(scene), *self._size, 3), dtype=np.uint8)
        for b in range(len(scene)):
            model.geom_group[1:] = np.where(shown[b], SHOWN, HIDDEN)
            data.geom_xpos[:] = position[b]
            data.geom_xmat[:] = rotation[b].reshape(-1, 9)
            data.cam_xpos[0] = camera_position[b]
            data.cam_xmat[0] = camera_axes[b].ravel()
            self._renderer.update_scene(data, camera=0)
            self._renderer.render(out=pictures[b])
        return pictures

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()
