"""Pictures of described scenes, larger than those that the network looks at."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from inference.checkpoint import Checkpoint
from inference.images import Decoder
from renderer import open_renderer
from renderer.backend import Renderer
from service.descriptions import scene_of
from service.engine import SUPERSAMPLE
from service.schemas import SceneDescription
from service.settings import Settings

# Drawings that may wait; a picture takes some tens of milliseconds.
MOST_WAITING = 16


class CrowdedError(Exception):
    """As many drawings wait as may."""


class Artist:
    """Draws scenes on a thread of its own, so that nobody who infers has to wait for it.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="artist")
        self._inside = 0
        self._model = ""  # whose scenes the renderer draws
        self._renderers: dict[bool, Renderer] = {}  # by whether they draw previews

    async def draw(
        self,
        checkpoint: Checkpoint,
        description: SceneDescription,
        photo: bytes | None,
        *,
        preview: bool = False,
    ) -> bytes:
        """The PNG file of a scene, or of its difference from a photo.

        Args:
            checkpoint: whose world the scene is of.
            description: of the scene.
            photo: an image file; of each colour its absolute difference is drawn.
            preview: draw it half as large.

        Raises:
            DescriptionError: the checkpoint's world has no such scene.
            ImageError: the photo cannot be used.
            CrowdedError: as many drawings wait as may.
        """
        if self._inside >= MOST_WAITING:
            raise CrowdedError
        self._inside += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._thread, self._draw, checkpoint, description, photo, preview
            )
        finally:
            self._inside -= 1

    async def stop(self) -> None:
        """Frees the renderer."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _draw(
        self,
        checkpoint: Checkpoint,
        description: SceneDescription,
        photo: bytes | None,
        preview: bool,
    ) -> bytes:
        scene = scene_of(checkpoint.spec, description)
        renderer = self._opened(checkpoint, preview)
        pixels = renderer.render_bytes(scene)[0].numpy()
        if photo is not None:
            settings = self._settings
            decoder = Decoder(
                renderer.height,
                renderer.width,
                checkpoint.spec.background,
                settings.max_bytes,
                settings.max_pixels,
            )
            seen = decoder.decode(photo).pixels.permute(1, 2, 0).mul(255.0).round().numpy()
            pixels = np.abs(seen - pixels).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    def _opened(self, checkpoint: Checkpoint, preview: bool) -> Renderer:
        """A renderer of a checkpoint's world; opening one takes seconds on some machines."""
        if self._model != checkpoint.sha256:
            self._close()
            self._model = checkpoint.sha256
        if preview not in self._renderers:
            height = self._settings.render_height // (2 if preview else 1)
            width = round(height * checkpoint.spec.camera.aspect)
            self._renderers[preview] = open_renderer(
                checkpoint.spec, height=height, width=width, supersample=SUPERSAMPLE
            )
        return self._renderers[preview]

    def _close(self) -> None:
        for renderer in self._renderers.values():
            close = getattr(renderer, "close", None)
            if close is not None:
                close()
        self._renderers = {}
