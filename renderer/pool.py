"""One renderer on several processes: a batch is cut in parts that are drawn at the same time.

Drawing holds Python's lock most of the time, so threads do not help. Scenes and pictures lie in
memory that all processes share; through the pipes between them go only a few hundred bytes a batch.

Workers are started anew (`spawn`): an OpenGL context, Warp and torch's threads do not survive a
fork. As with everything that spawns, a script that opens a pool outside of
`if __name__ == "__main__":` starts itself over in its workers, which Python refuses.

Nothing is left behind, however the pool ends. A worker ends when its pipe does, and a pipe ends
with the process that holds it, even with one that is killed. Shared memory loses its name as soon
as all workers have opened it, and what has no name is freed with the last process that uses it;
should the parent be killed in the few milliseconds between, multiprocessing's resource tracker
removes it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, pairwise
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renderer.appearance import Appearance, appearance_of
from renderer.backend import BackendError, Format, WindowRenderer, open_backend
from renderer.mjcf import slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec

SHARED = Path("/dev/shm")  # where Linux keeps shared memory; containers often give it 64 MB
DEAF_TO = (signal.SIGINT, signal.SIGTERM)  # workers are
FAREWELL = 2.0  # s that idle workers are given to leave before they are ended


class WorkerError(BackendError):
    """A drawing process ended that should not have; the message says how."""


class _Field(NamedTuple):
    """Where an array lies in shared memory."""

    shape: tuple[int, ...]
    dtype: str
    offset: int  # bytes

    def of(self, memory: SharedMemory) -> NDArray[Any]:
        """The array itself. Not to be kept: memory that is looked at cannot be closed."""
        return np.ndarray(self.shape, self.dtype, memory.buf, self.offset)


class _Open(NamedTuple):
    """Tells a worker, first of all, to open its renderer."""

    spec: SceneSpec
    form: Format
    backend: str


class _Attach(NamedTuple):
    """Tells a worker to take up other shared memory."""

    scenes: str
    pictures: str


class _Draw(NamedTuple):
    """Tells a worker to draw scenes `start` to `stop` - 1 of the batch in shared memory."""

    scene: tuple[_Field, ...]  # the tensors of a Scene
    appearance: tuple[_Field, ...]  # the tensors of an Appearance; none for the spec's
    windows: _Field | None  # [B, 4] int64; None for whole pictures
    drawn: _Field  # [B, H, W, 3] uint8, or [P, 3] float32
    start: int
    stop: int


class _Crew:
    """The workers and the memory that they share; all that has to be given back in the end."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.processes: list[BaseProcess] = []
        self.pipes: list[Connection] = []
        self.scenes: SharedMemory | None = None
        self.pictures: SharedMemory | None = None

    def dismiss(self, patience: float = FAREWELL) -> None:
        """Ends the workers and frees the memory; once more does no harm.

        Args:
            patience: s to wait for workers that are leaving by themselves.
        """
        if os.getpid() != self.owner:  # a fork of the parent: the workers are not its own
            return
        for pipe in self.pipes:
            pipe.close()
        processes, self.processes, self.pipes = self.processes, [], []
        deadline = time.monotonic() + patience
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
        for process in processes:
            process.join()
            process.close()
        for memory in (self.scenes, self.pictures):
            if memory is not None:
                memory.close()
        self.scenes = self.pictures = None


class PooledRenderer:
    """Draws each batch on several processes, this one among them.

    The pictures are bit for bit those that one renderer draws of the batch.

    A batch that is interrupted (Ctrl-C) or loses a worker closes the pool. Not to be used in a fork
    of the process that opened it.

    Args:
        spec: the world.
        form: size, samples and slots of the pictures.
        backend: `opengl` or `raycast`.
        processes: that draw at once; this one and `processes` - 1 workers, seconds to start.

    Raises:
        BackendError: the backend does not work on this machine, or a worker did not start
            (WorkerError).
    """

    device = torch.device("cpu")

    def __init__(
        self,
        spec: SceneSpec,
        form: Format,
        *,
        backend: str,
        processes: int,
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise BackendError(
                "this process is itself a worker and may not start others; draw with processes=1"
            )
        self.spec, self.name = spec, backend
        self.height, self.width = form["height"], form["width"]
        self.supersample, self.slots = form["supersample"], form["slots"] or spec.count.max
        self.processes = processes
        self._lock = threading.Lock()
        self._crew = _Crew()
        # Also when the renderer is forgotten, and at the interpreter's end.
        self._farewell = weakref.finalize(self, self._crew.dismiss)
        try:
            with _no_interrupts():
                for number in range(1, processes):
                    self._hire(number)
            self._own = open_backend(spec, form, backend=backend, device="cpu")
            for number in range(len(self._crew.pipes)):
                self._tell(number, _Open(spec, form, backend))
            for error in self._replies(range(len(self._crew.pipes))):
                raise error
        except BaseException:
            self._crew.dismiss(patience=0)
            raise

    def _hire(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # Nothing large goes with it: a worker that ends before reading it would block `start`.
        process = context.Process(
            target=_work, args=(theirs,), name=f"renderer-{number}", daemon=True
        )
        process.start()
        theirs.close()  # so that the pipe ends with the worker
        self._crew.processes.append(process)
        self._crew.pipes.append(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; the renderer cannot draw afterwards. Once more does no harm."""
        with self._lock:
            self._farewell()
            self._own.close()

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes.

        Raises:
            WorkerError: a worker ended, killed perhaps; the pool is closed.
        """
        return self.render_bytes(scene, appearance).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """The same pictures as `[B, H, W, 3]` uint8; raises as `render`."""
        looks = self._looks(scene, appearance)
        scene = slots_of(scene, self.slots)
        pictures = np.empty((len(scene), self.height, self.width, 3), dtype=np.uint8)
        return self._draw(scene, looks, None, pictures, np.arange(len(scene) + 1))

    def render_windows(
        self, scene: Scene, windows: Tensor, appearance: Appearance | None = None
    ) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed.

        See `WindowRenderer.render_windows`; raises as `render`.
        """
        looks = self._looks(scene, appearance)
        scene, windows = slots_of(scene, self.slots), windows.cpu()
        ends = _ends(windows)
        pixels = np.empty((int(ends[-1]), 3), dtype=np.float32)
        return self._draw(scene, looks, windows, pixels, ends)

    def _looks(self, scene: Scene, appearance: Appearance | None) -> Appearance | None:
        return None if appearance is None else appearance_of(scene, appearance, self.slots)

    def _draw(
        self,
        scene: Scene,
        looks: Appearance | None,
        windows: Tensor | None,
        drawn: NDArray[Any],
        ends: NDArray[np.int64],
    ) -> Tensor:
        """What is drawn of all scenes.

        Args:
            scene: B scenes.
            looks: of each; None for the spec's.
            windows: `[B, 4]`, or None for whole pictures.
            drawn: room for it.
            ends: `[B + 1]`, the rows of `drawn` at which that of each scene starts and ends.
        """
        with self._lock:
            if not self._farewell.alive or not self._crew.pipes:
                raise RuntimeError("this renderer is closed; open another with open_renderer")
            if os.getpid() != self._crew.owner:
                raise RuntimeError("this renderer is another process's; open one in this process")
            try:
                error = self._share_out(scene, looks, windows, drawn, ends)
            except BaseException:  # replies may be under way: the next batch would take them up
                self._crew.dismiss(patience=0)
                raise
        if error is not None:
            raise error
        return torch.from_numpy(drawn)

    def _share_out(
        self,
        scene: Scene,
        looks: Appearance | None,
        windows: Tensor | None,
        drawn: NDArray[Any],
        ends: NDArray[np.int64],
    ) -> Exception | None:
        """Fills in what is drawn; returns the first thing that went wrong with a part of it."""
        crew, count = self._crew, len(scene)
        # The parent takes the last part: the others are on their way before it starts.
        cuts = [count * number // self.processes for number in range(self.processes + 1)]
        parts = [slice(a, b) for a, b in pairwise(cuts[:-1])]
        errors: list[Exception] = []
        at_work = [number for number, part in enumerate(parts) if part.start < part.stop]
        if at_work:
            batch = [
                list(scene.tensors()),
                [] if looks is None else list(looks.tensors()),
                [] if windows is None else [windows],
            ]
            tensors = [tensor.detach().cpu().numpy() for part in batch for tensor in part]
            fields, size = _layout(tensors)
            first, second, _ = accumulate(len(part) for part in batch)
            self._make_room(size, drawn.nbytes)
            assert crew.scenes is not None and crew.pictures is not None
            for field, tensor in zip(fields, tensors, strict=True):
                field.of(crew.scenes)[...] = tensor
            whole = _Field(drawn.shape, drawn.dtype.str, 0)
            at = None if windows is None else fields[second]
            what = (fields[:first], fields[first:second], at, whole)
            for number in at_work:
                self._tell(number, _Draw(*what, parts[number].start, parts[number].stop))
        try:
            own = slice(cuts[-2], cuts[-1])
            dressed = None if looks is None else looks[own]
            drawn[ends[own.start] : ends[own.stop]] = _draw_part(
                self._own, scene[own], dressed, windows, own
            )
        except Exception as error:
            errors.append(error)
        errors += self._replies(at_work)
        if errors:
            return errors[0]
        if at_work:
            assert crew.pictures is not None
            theirs = slice(0, int(ends[parts[-1].stop]))
            drawn[theirs] = whole.of(crew.pictures)[theirs]
        return None

    def _make_room(self, scenes: int, pictures: int) -> None:
        """Sees to it that so many bytes of both fit into shared memory."""
        crew = self._crew
        have = (crew.scenes.size if crew.scenes else 0, crew.pictures.size if crew.pictures else 0)
        if have[0] >= scenes and have[1] >= pictures:
            return
        needed = max(have[0], scenes) + max(have[1], pictures)
        # Beyond the limit, the system would end whoever writes there.
        if SHARED.is_dir() and shutil.disk_usage(SHARED).free < needed:
            raise BackendError(
                f"{needed >> 20} MiB of pictures do not fit into {SHARED}; the renderer is closed. "
                "Draw smaller batches, enlarge it (docker run --shm-size=1g), or use processes=1"
            )
        with (
            _new_memory(max(have[0], scenes)) as new_scenes,
            _new_memory(max(have[1], pictures)) as new_pictures,
        ):
            for number in range(len(crew.pipes)):
                self._tell(number, _Attach(new_scenes.name, new_pictures.name))
            for error in self._replies(range(len(crew.pipes))):
                raise error
        for old in (crew.scenes, crew.pictures):
            if old is not None:
                old.close()
        crew.scenes, crew.pictures = new_scenes, new_pictures

    def _tell(self, number: int, message: _Open | _Attach | _Draw) -> None:
        try:
            self._crew.pipes[number].send(message)
        except OSError:
            raise self._lost(number) from None

    def _replies(self, numbers: range | list[int]) -> list[Exception]:
        """Waits for one reply of each of these workers; returns what went wrong there."""
        awaited = {self._crew.pipes[number]: number for number in numbers}
        errors: list[Exception] = []
        while awaited:
            for pipe in connection.wait(list(awaited)):
                assert isinstance(pipe, Connection)
                number = awaited.pop(pipe)
                try:
                    reply = pipe.recv()
                except (EOFError, OSError):
                    raise self._lost(number) from None
                if reply is not None:
                    errors.append(reply)
        return errors

    def _lost(self, number: int) -> WorkerError:
        process = self._crew.processes[number]
        process.join(1)
        code = process.exitcode
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (for want of memory, or by hand)"
        else:  # Python ended it, and has said why
            how = (
                f"ended with exit code {code} and printed why; if that names `__main__`, open the "
                'renderer under `if __name__ == "__main__":`'
            )
        return WorkerError(
            f"worker {number + 1} of the {len(self._crew.pipes)} that draw beside this process "
            f"{how}; this renderer is closed, open another"
        )


def _draw_part(
    renderer: WindowRenderer,
    scene: Scene,
    looks: Appearance | None,
    windows: Tensor | None,
    part: slice,
) -> NDArray[Any]:
    """Pictures, or pixels of windows, of those scenes that are `part` of a batch.

    Args:
        renderer: draws them.
        scene: those scenes.
        looks: theirs; None for the spec's.
        windows: `[B, 4]`, of all of the batch; None for pictures.
        part: where in the batch they are.
    """
    if renderer.name == "opengl":  # where in its framebuffer it draws depends on all of the batch
        from renderer.opengl import OpenGLRenderer

        assert isinstance(renderer, OpenGLRenderer)
        if windows is None:
            return renderer.render_bytes(scene, looks, before=part.start).numpy()
        return renderer.render_windows(scene, windows, looks, part=part).numpy()
    if windows is None:
        return renderer.render_bytes(scene, looks).numpy()
    return renderer.render_windows(scene, windows[part], looks).numpy()


def _ends(windows: Tensor) -> NDArray[np.int64]:
    """`[N + 1]`, the packed pixels at which those of each window `[N, 4]` start and end."""
    areas = windows[:, 2:].prod(dim=1)
    return torch.cat([areas.new_zeros(1), areas.cumsum(0)]).numpy()


def _layout(tensors: list[NDArray[Any]]) -> tuple[tuple[_Field, ...], int]:
    """Places for arrays one behind the other, and the bytes for all."""
    fields, offset = [], 0
    for tensor in tensors:
        fields.append(_Field(tensor.shape, tensor.dtype.str, offset))
        offset += -(-tensor.nbytes // 8) * 8  # numbers lie at multiples of their size
    return tuple(fields), offset


@contextmanager
def _new_memory(size: int) -> Iterator[SharedMemory]:
    """Shared memory that has a name within the context only, so that nothing of it can stay."""
    memory = SharedMemory(create=True, size=size)
    try:
        yield memory
    except BaseException:
        memory.close()
        raise
    finally:
        memory.unlink()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started here are deaf to Ctrl-C from birth: their parent tells them to leave.

    To SIGTERM as well, which supervisors send to all of a group, so that a parent that finishes
    its work first can.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it changes the mask too when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection) -> None:
    """A worker's life: opens its renderer, then does what it is told until the pipe ends.

    Every message is answered by None, or by the exception that it led to.
    """
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    # Mesa's software renderer would start threads for every core in every worker.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    with suppress(EOFError, OSError):  # the parent is gone, or has closed its end
        order: _Open = pipe.recv()
        try:
            renderer = open_backend(order.spec, order.form, backend=order.backend, device="cpu")
        except Exception as error:
            pipe.send(_portable(error))
            return
        pipe.send(None)
        memories: list[SharedMemory] = []
        while True:
            message: _Attach | _Draw = pipe.recv()
            reply = None
            try:
                if isinstance(message, _Attach):
                    for memory in memories:
                        memory.close()
                    memories = [SharedMemory(message.scenes), SharedMemory(message.pictures)]
                else:
                    part = slice(message.start, message.stop)
                    # Copies: an error keeps hold of what it happened to.
                    scene, look = (
                        [torch.from_numpy(f.of(memories[0])[part].copy()) for f in entry]
                        for entry in (message.scene, message.appearance)
                    )
                    windows, rows = None, part
                    if message.windows is not None:
                        windows = torch.from_numpy(message.windows.of(memories[0]).copy())
                        rows = slice(*_ends(windows)[[part.start, part.stop]].tolist())
                    drawn = _draw_part(
                        renderer, Scene(*scene), Appearance(*look) if look else None, windows, part
                    )
                    message.drawn.of(memories[1])[rows] = drawn
            except Exception as error:
                reply = _portable(error)
            pipe.send(reply)
    # All that a worker holds goes with it; Python would take half a second to put it away.
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """The error, or one with the same message, such as can be handed to another process."""
    where = f"In drawing process {os.getpid()}:\n{''.join(traceback.format_exception(error))}"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own pickling raises
        error = BackendError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error
