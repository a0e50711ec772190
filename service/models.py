"""The engines of the model that lies in the checkpoint's folder, in this process or in others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import torch

from inference.checkpoint import Checkpoint, load_checkpoint
from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d
from service.engine import Engine
from service.engine_process import EngineProcess
from service.glimpse_engine import GlimpseEngine
from service.lane import Infers
from service.settings import Settings


class Models:
    """Makes engines, of the model as it lies in the folder whenever it is asked for.

    Args:
        settings: of the service.
        loaded: the first model, when it was loaded already; a 2D model must be.
    """

    def __init__(self, settings: Settings, loaded: Checkpoint | Checkpoint2d | None) -> None:
        self._settings, self._loaded = settings, loaded
        self._flat = isinstance(loaded, Checkpoint2d)

    def engines(self) -> Callable[[], Infers]:
        """What makes engines of one and the same model, each on the thread that calls it.

        The first call loads the model.
        """
        model, self._loaded = self._loaded, None
        lock = threading.Lock()

        def make() -> Infers:
            nonlocal model
            with lock:
                if model is None:
                    model = self._load()
            return self._engine(model)

        return make

    def _load(self) -> Checkpoint | Checkpoint2d:
        folder = self._settings.checkpoint
        return load_checkpoint2d(folder) if self._flat else load_checkpoint(folder)

    def _engine(self, model: Checkpoint | Checkpoint2d) -> Infers:
        threads = self._settings.threads
        kind: Any = GlimpseEngine if self._flat else Engine
        if self._settings.engines == 1:
            # One has the processor for itself anyhow. What a 2D model's answers is read by
            # GLIMPSE_ROUTERS alone.
            return cast(Infers, kind(model, threads=threads))
        torch.set_num_threads(threads)  # of the decoders
        return EngineProcess(kind, model, threads=threads)
