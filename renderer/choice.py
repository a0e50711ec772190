"""Which backend is fastest here: measured once, then remembered.

How the backends compare depends on the processor, on whether a GPU draws, on the size of the
pictures and on what is in them, by factors of five in both directions. So `auto` draws a few
sampled scenes with each and keeps the answer in a small JSON file in the user's cache folder
(`$XDG_CACHE_HOME` or `~/.cache`, then `airscene/backends.json`), by machine and kind of picture.
`AIRSCENE_BACKEND=opengl` or `=raycast` settles it without a measurement.
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from renderer.backend import BACKENDS, BackendError, Format, Renderer, open_backend
from renderer.cpus import available_cpus
from renderer.prior import sample
from renderer.spec import SceneSpec

OVERRIDE = "AIRSCENE_BACKEND"
PATIENCE = 4.0  # s to wait for ray casting's first picture while there is something else
MEASURING = 0.4  # s of drawing
ROUNDS = 5  # at most; the best of each backend counts, the others were disturbed
SCENES = 16  # in a batch, at most
SAMPLES = 1 << 20  # in a batch, about at most: a tenth of a second by a slow backend
REMEMBERED = 200  # kinds of pictures; the oldest are forgotten

# What was found in this process, where it cannot be written down.
_found: dict[str, str] = {}


def choose_backend(
    spec: SceneSpec,
    form: Format,
    *,
    device: str = "cpu",
    patience: float = PATIENCE,
    anew: bool = False,
) -> str:
    """The name of the fastest backend for such pictures on this machine.

    Takes about a second where it has to measure. Warp compiles its kernels for the first picture of
    a kind, for seconds; where that takes longer than `patience`, OpenGL is the answer for now, the
    kernels get ready meanwhile, and the next process measures. Nothing random is drawn from torch's
    own generator.

    Args:
        spec: the world.
        form: size, samples and slots of the pictures.
        device: where the pictures are to lie.
        patience: s to wait for kernels to be compiled. Long where much is to be drawn.
        anew: measures even if the answer is known.

    Raises:
        BackendError: no backend works here, and why.
        ValueError: AIRSCENE_BACKEND names none.
    """
    override = os.environ.get(OVERRIDE, "auto")
    if override != "auto":
        if override not in BACKENDS:
            raise ValueError(f"{OVERRIDE}={override} names no backend; set {' or '.join(BACKENDS)}")
        return override
    if device != "cpu":
        return "raycast"  # the only one that draws there
    key = situation(spec, form)
    known = _found.get(key) or _recall(key)
    if known is not None and not anew:
        return known
    contest = _Contest(spec, form, patience)
    try:
        seconds = contest.measure()
    finally:
        contest.close()
    if not seconds:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in contest.failures.items())
        raise BackendError(f"no backend can draw on this machine: {reasons}")
    _found[key] = fastest = min(seconds, key=seconds.__getitem__)
    if len(seconds) > 1:  # otherwise not for ever: the other may be installed, or get ready
        milliseconds = {name: round(1e3 * value, 3) for name, value in seconds.items()}
        _remember(key, {"backend": fastest, "milliseconds_per_picture": milliseconds})
    return fastest


def situation(spec: SceneSpec, form: Format) -> str:
    """All that the answer depends on, in words: the machine, its programs, the kind of picture."""
    faces = sum(len(g.mesh.faces) for g in spec.geometries if g.mesh is not None)
    versions = [f"{name} {_version(name)}" for name in ("mujoco", "mujoco-warp", "airscene")]
    cards = [*Path("/dev/dri").glob("renderD*"), *Path("/dev").glob("nvidia[0-9]*")]
    wishes = ("MUJOCO_GL", "LIBGL_ALWAYS_SOFTWARE", "GALLIUM_DRIVER", "LP_NUM_THREADS")
    return ", ".join(
        [
            _processor(),
            f"{available_cpus()} cores",
            " ".join(sorted(card.name for card in cards)) or "no GPU",
            *(f"{name}={os.environ[name]}" for name in wishes if name in os.environ),
            *versions,
            f"{form['width']} x {form['height']} px",
            f"{form['supersample'] ** 2} samples",
            f"{form['slots'] or spec.count.max} slots",
            f"about {1 << round(math.log2(faces)) if faces else 0} faces",
        ]
    )


class _Contest:
    """The backends that work here, each with its first picture drawn."""

    def __init__(self, spec: SceneSpec, form: Format, patience: float) -> None:
        samples = form["height"] * form["width"] * form["supersample"] ** 2
        count = max(1, min(SCENES, SAMPLES // samples))
        self._scene = sample(spec, count, generator=torch.Generator().manual_seed(0))
        self._scene.presence[:, form["slots"] or spec.count.max :] = False
        self.failures: dict[str, str] = {}
        arrived: dict[str, Renderer] = {}
        self._enter(spec, form, "opengl", arrived)
        # A thread cannot be stopped: one that is late goes on, and its kernels stay on the disk.
        late = threading.Thread(target=self._enter, args=(spec, form, "raycast", arrived))
        late.start()
        late.join(patience if arrived else None)
        self.renderers = dict(arrived)

    def _enter(
        self, spec: SceneSpec, form: Format, name: str, arrived: dict[str, Renderer]
    ) -> None:
        try:
            renderer = open_backend(spec, form, backend=name, device="cpu")
            renderer.render_bytes(self._scene)
        except Exception as error:  # each library fails in its own way
            self.failures[name] = str(error) or type(error).__name__
        else:
            arrived[name] = renderer

    def measure(self) -> dict[str, float]:
        """The least seconds that each took for a picture; in turns, so that a load meets all."""
        if len(self.renderers) < 2:
            return dict.fromkeys(self.renderers, 0.0)
        seconds = dict.fromkeys(self.renderers, math.inf)
        start = perf_counter()
        for _ in range(ROUNDS):
            for name, renderer in self.renderers.items():
                before = perf_counter()
                renderer.render_bytes(self._scene)
                took = (perf_counter() - before) / len(self._scene)
                seconds[name] = min(seconds[name], took)
            if perf_counter() - start > MEASURING:
                break
        return seconds

    def close(self) -> None:
        """Frees what the backends hold."""
        for renderer in self.renderers.values():
            renderer.close()


def cache_file() -> Path:
    """Where answers are kept; there may be nothing yet."""
    return cache_folder() / "backends.json"


def cache_folder() -> Path:
    """Where what can be made again is kept for the user; there may be no such folder yet."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    folder = Path(cache) if Path(cache).is_absolute() else Path("~/.cache").expanduser()
    return folder / "airscene"


def _read() -> dict[str, Any]:
    """All answers; none if there is no file that can be understood."""
    with suppress(OSError, ValueError, RuntimeError):  # also: no home
        content = json.loads(cache_file().read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _recall(key: str) -> str | None:
    answer = _read().get(key)
    backend = answer.get("backend") if isinstance(answer, dict) else None
    return backend if backend in BACKENDS else None


def _remember(key: str, answer: dict[str, Any]) -> None:
    """Writes an answer down if that is possible."""
    answers = _read()
    answers.pop(key, None)
    kept = [*answers.items(), (key, answer)][-REMEMBERED:]
    with suppress(OSError, RuntimeError):
        file = cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        # Replaced in one step. Of two that write at once one is forgotten, and measured again.
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as draft:
                json.dump(dict(kept), draft, indent=1)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
