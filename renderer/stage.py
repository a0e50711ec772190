"""One MuJoCo scene on OpenGL, whose camera and objects are moved about between two pictures.

MuJoCo fills in its scene once, with everything that there is. Each picture then changes only what
differs from the one before, and of it only what the spec's classes do not have in common: with
small pictures, telling MuJoCo what to draw costs as much as drawing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from renderer.backend import BackendError
from renderer.camera import principal_point
from renderer.mjcf import SceneModel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

NOBODY = -1  # no class

# What makes an MjvGeom look like its class, wherever it stands.
_LOOKS = (
    *("type", "dataid", "objtype", "category", "matid", "texid", "texuniform", "texrepeat"),
    *("texcoord", "size", "rgba", "emission"),
    *("specular", "shininess", "reflectance", "transparent"),
)


class Dress(NamedTuple):
    """How one scene is lit and coloured, where that is not as the spec says."""

    light_direction: Floats  # [3]
    table: Floats  # [3] RGB
    objects: Floats  # [K, C, 3] RGB
    light: float
    headlight: float
    ambient: float


class Stage:
    """Draws scenes of one model into its framebuffer, wherever it is told to.

    Everything but the constructor's arithmetic needs the same OpenGL context to be current.

    Args:
        scene_model: what there is.
        height: of a whole picture, px.
        width: of a whole picture, px.
        slots: object slots.
        framebuffer: its height and width, samples.

    Raises:
        BackendError: OpenGL has no framebuffer as large.
    """

    def __init__(
        self,
        scene_model: SceneModel,
        *,
        height: int,
        width: int,
        slots: int,
        framebuffer: tuple[int, int],
    ) -> None:
        from OpenGL import GL  # binds itself to a library when it is imported: not before now

        self._read_pixels = GL.glReadPixels
        self._format = (GL.GL_RGBA, GL.GL_UNSIGNED_BYTE)
        self.scene_model = scene_model
        self._height = height
        self._axis = principal_point(scene_model.spec.camera, height, width)
        model = scene_model.model
        model.vis.global_.offheight, model.vis.global_.offwidth = framebuffer
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            raise BackendError(
                f"OpenGL cannot draw {framebuffer[1]} x {framebuffer[0]} px here ({error}); choose "
                "a smaller picture or supersample, or the backend 'raycast'"
            ) from None
        self._samples = np.empty((*framebuffer, 4), dtype=np.uint8)
        self._prepare(model, slots)

    def free(self) -> None:
        """Frees the framebuffer."""
        self._context.free()

    def _prepare(self, model: mujoco.MjModel, slots: int) -> None:
        """Lets MuJoCo fill in one scene with everything."""
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 1)
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = 0
        option, perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        mujoco.mjv_updateScene(
            model, data, option, perturb, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        for flag in ("SHADOW", "REFLECTION", "FOG", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        # The model has a sky exactly where the background is not black.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 1
        geoms = {geom.objid: geom for geom in self._scene.geoms[: self._scene.ngeom]}
        self._classes = len(self.scene_model.spec.objects)
        looks = [
            {name: _copy(getattr(geoms[1 + c], name)) for name in _LOOKS}
            for c in range(self._classes)
        ]
        table = {name: _copy(getattr(geoms[0], name)) for name in (*_LOOKS, "pos", "mat")}
        for name, value in table.items():
            _assign(self._scene.geoms[0], name, value)
        for geom in self._scene.geoms[1 : 1 + slots]:
            for name, value in looks[0].items():
                _assign(geom, name, value)
        # What all classes have in common need not be said again.
        # Of colours there may be others for a while.
        varying = [
            name
            for name in _LOOKS
            if name == "rgba" or any(_differ(look, looks[0], name) for look in looks)
        ]
        arrays = [name for name in varying if isinstance(looks[0][name], np.ndarray)]
        numbers = [name for name in varying if name not in arrays]
        self._looks = [
            ([look[name] for name in arrays], [(name, look[name]) for name in numbers])
            for look in looks
        ]
        self._shown = [0] * slots  # class whose look each drawn geom has now
        self._rgba = arrays.index("rgba")
        # Views of what changes between pictures, kept: asking for each anew costs more than it.
        eyes = list(self._scene.camera)  # both: MuJoCo averages them
        lamps = self._scene.lights[: self._scene.nlight]
        lights = [lamp for lamp in lamps if lamp.headlight]
        self._headlight, self._lamp = lights[0], next(lamp for lamp in lamps if not lamp.headlight)
        self._usual = Dress(
            self._lamp.dir.copy(),
            self._scene.geoms[0].rgba[:3].copy(),
            np.empty(0, dtype=np.float32),
            float(self._lamp.diffuse[0]),
            float(self._headlight.diffuse[0]),
            float(self._headlight.ambient[0]),
        )
        self._dressed: Dress | None = None
        self._eyes = eyes
        self._from = [one.pos for one in (*eyes, *lights)]
        self._towards = [*(eye.forward for eye in eyes), *(light.dir for light in lights)]
        self._up = [eye.up for eye in eyes]
        self._geoms = [
            (geom, geom.pos, geom.mat, [getattr(geom, name) for name in arrays])
            for geom in self._scene.geoms[1 : 1 + slots]
        ]
        self._pixel = (eyes[0].frustum_top - eyes[0].frustum_bottom) / self._height

    def dress(self, dress: Dress | None) -> None:
        """Lights and colours what is drawn from here on; None is as the spec says.

        While there is a dress there is no background either: its pixels have alpha 0.
        """
        if dress is self._dressed:
            return
        look = dress or self._usual
        self._lamp.dir[:] = look.light_direction
        self._lamp.diffuse[:], self._headlight.diffuse[:] = look.light, look.headlight
        self._headlight.ambient[:] = look.ambient
        self._scene.geoms[0].rgba[:3] = look.table
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = dress is None
        self._shown = [NOBODY] * len(self._shown)
        self._dressed = dress

    def aim(self, position: Floats, axes: Floats) -> None:
        """Moves the camera to `position` `[3]` m with `axes` `[3, 3]` (right, up, backward)."""
        forward, up = -axes[:, 2], axes[:, 1]
        for view in self._from:
            view[:] = position
        for view in self._towards:
            view[:] = forward
        for view in self._up:
            view[:] = up

    def frame(self, left: int, top: int, width: int, height: int) -> None:
        """Looks at that part of the picture, px; its sides follow from the viewport's shape."""
        middle, axis = self._axis
        centre = (left + 0.5 * width - middle) * self._pixel
        upper = (axis - top) * self._pixel
        lower = upper - height * self._pixel
        for eye in self._eyes:
            eye.frustum_center, eye.frustum_top, eye.frustum_bottom = centre, upper, lower

    def place(self, objects: Sequence[tuple[int, int]], position: Floats, rotation: Floats) -> None:
        """Puts these objects on the table, and no others.

        Args:
            objects: slot and class of each.
            position: `[K, 3]` m, of each slot's geom.
            rotation: `[K, 3, 3]`, of each slot's geom.
        """
        for drawn, (slot, c) in enumerate(objects):
            geom, at, turned, views = self._geoms[drawn]
            if self._shown[drawn] != c or self._dressed is not None:
                arrays, numbers = self._looks[c]
                for view, array in zip(views, arrays, strict=True):
                    view[:] = array
                for name, number in numbers:
                    setattr(geom, name, number)
                self._shown[drawn] = c
                if self._dressed is not None:
                    views[self._rgba][:3] = self._dressed.objects[slot, c]
            at[:] = position[slot]
            turned[:] = rotation[slot]
        self._scene.ngeom = 1 + len(objects)

    def draw(self, left: int, bottom: int, width: int, height: int) -> None:
        """Draws into that part of the framebuffer, samples."""
        area = mujoco.MjrRect(left, bottom, width, height)
        mujoco.mjr_render(area, self._scene, self._context)

    def read(self, bottom: int, rows: int) -> Bytes:
        """Rows of samples of the framebuffer, upwards: `[rows, width, 4]`, valid until the next.

        With their alpha, as OpenGL keeps them: MuJoCo's own way without takes twice as long.
        """
        area = self._samples[:rows]
        self._read_pixels(0, bottom, area.shape[1], rows, *self._format, area)
        return area


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _differ(one: dict[str, Any], other: dict[str, Any], name: str) -> bool:
    return not np.array_equal(one[name], other[name])


def _assign(geom: Any, name: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        getattr(geom, name)[:] = value
    else:
        setattr(geom, name, value)
