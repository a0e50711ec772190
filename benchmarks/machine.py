"""What was measured on: figures of two machines, or of a busy one, are not to be compared."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from renderer import BackendError, opengl
from renderer.cpus import available_cpus

PACKAGES = ("torch", "mujoco", "mujoco-warp", "warp-lang", "numpy")


def facts() -> dict[str, Any]:
    """Processors, load, versions, the OpenGL driver and the graphics card, as plain data."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    driver, reason = opengl_driver()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "affinity": None if affinity is None else sorted(affinity),
        "available_cpus": available_cpus(),
        "load_average": load_average(),
        "torch_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "opengl": driver,
        "opengl_missing": reason,
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def load_average() -> list[float] | None:
    """Runnable processes over the last 1, 5 and 15 minutes, where the system counts them."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def opengl_driver() -> tuple[dict[str, str] | None, str | None]:
    """Vendor, renderer and version as OpenGL tells them; or None, and why there is none."""
    try:
        context = opengl.create_context()
    except BackendError as error:
        return None, str(error)
    # Only now: PyOpenGL binds itself to a library when it is imported.
    from OpenGL import GL

    with context.as_current():
        told = {
            "vendor": GL.glGetString(GL.GL_VENDOR),
            "renderer": GL.glGetString(GL.GL_RENDERER),
            "version": GL.glGetString(GL.GL_VERSION),
        }
    context.free()
    return {key: (value or b"").decode(errors="replace") for key, value in told.items()}, None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not on Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
