"""An engine in a process of its own, used as if it were in this one.

Python runs one thread of a process at a time, and an engine's thread needs Python between any two
of its many short operations: beside a busy event loop it waits a good part of its time, and a
second engine in the same process would answer hardly more. In processes of their own engines get
whole processors, and a fault in a driver or a library ends one of them and not the server.

What goes over the pipe is pickled, between our own processes only. Pixels go through memory that
both share. Checkpoint and pictures are not sent back with the answers: this side has them.
"""

from __future__ import annotations

import atexit
import gc
import io
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from inference.checkpoint import Checkpoint
from inference.checkpoint2d import Checkpoint2d
from inference.images import Picture
from service.engine import Answer, EngineError

ATTEMPTS = 2  # to have something done, each by a process that is alive at first
PATIENCE = 5.0  # s, for a process to end once it was asked to

# Bytes of shared memory, of which only as many are taken as are used, and of the smallest tensor
# that goes through it. What does not fit goes over the pipe.
SHARED, LARGE = 16 * 2**20, 2**14

logger = logging.getLogger("airscene")

Model = Checkpoint | Checkpoint2d


class EngineLostError(BaseException):
    """The engine's process is gone, and there is no other. It ends the thread that asked."""


class EngineProcess:
    """An engine in a process of its own; see `service.engine.Engine`.

    When the process dies, another takes its place and does what it was at. Only what kills that one
    too fails.

    Args:
        make: the engine; called in the process with the checkpoint and `threads`.
        checkpoint: loaded.
        threads: of torch, there.

    Raises:
        Exception: what making the engine raised.
    """

    def __init__(self, make: Callable[..., Any], checkpoint: Model, *, threads: int) -> None:
        self._make, self._threads = make, threads
        self.checkpoint: Any = checkpoint
        self._killed = False
        self._start()
        # Ours ignores what other daemonic processes are ended by, and would be waited for.
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return int(self._process.pid)

    def warm_up(self) -> None:
        """Infers once, so that what is slow once is slow now."""
        self._ask("warm_up")

    def infer_batch(self, pictures: Sequence[Picture]) -> list[Answer | EngineError]:
        """The scene in each picture."""
        answers: list[Answer | EngineError] = self._ask("infer_batch", pictures, known=pictures)
        return answers

    def refine(self, answer: Answer, steps: int, seconds: float) -> Answer:
        """The answer after render and compare."""
        known = [answer.picture]
        refined: Answer = self._ask("refine", answer, steps, seconds, known=known)
        return refined

    def close(self) -> None:
        """Ends the process."""
        atexit.unregister(self.kill)
        self._pipe.close()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def kill(self) -> None:
        """Ends the process whatever it is at, from any thread; whoever waits for it is told."""
        self._killed = True
        self._process.kill()

    def _start(self) -> None:
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._shared = context.RawArray("B", SHARED)
        self._process = context.Process(
            target=_work,
            args=(theirs, self._shared, self._make, pickle.dumps(self.checkpoint), self._threads),
            name="engine",
            daemon=True,  # it must not keep us from ending
        )
        self._process.start()
        theirs.close()  # so that the pipe ends with the process
        try:
            reply = self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            raise RuntimeError(
                f"the engine's process died at its start (exit code {self._process.exitcode})"
            ) from None
        self._read(reply, ())

    def _ask(self, method: str, *arguments: Any, known: Sequence[Picture] = ()) -> Any:
        """Has the engine do something.

        Args:
            method: of the engine.
            arguments: for it.
            known: pictures among the arguments, which need not come back.
        """
        for _ in range(ATTEMPTS):
            try:
                asked = (method, arguments, known)
                self._pipe.send_bytes(_dumps(asked, [self.checkpoint], self._shared))
                reply = self._pipe.recv_bytes()
            except (EOFError, OSError):
                if self._killed:
                    raise EngineLostError("the engine was ended") from None
            else:
                return self._read(reply, known)
            self._process.join(PATIENCE)
            code = self._process.exitcode
            logger.error("an engine's process died (exit code %s); another is started", code)
            self._pipe.close()
            try:
                self._start()
            except Exception as error:
                raise EngineLostError("no other engine could be started") from error
        raise EngineError("the engine's process died at this, twice")

    def _read(self, reply: bytes, known: Sequence[Picture]) -> Any:
        failed, result = _loads(reply, [self.checkpoint, *known])
        if failed:
            raise result
        return result


def prepare() -> None:
    """Begins, in the background, what all engines' processes have in common: their imports.

    Optional; without it the first of them waits for that.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver  # which Windows has not

        _context()
        forkserver.ensure_running()


def _context() -> Any:
    """How processes are started."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # A fork of this process would have its locks, and none of the threads that hold them. A server
    # of forks has no threads, and imports once for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["service.engine", "service.glimpse_engine", __name__])
    return context


def _work(
    pipe: Connection, shared: Any, make: Callable[..., Any], checkpoint: bytes, threads: int
) -> None:
    """What the process does: makes an engine, and has it do what is asked."""
    # Both reach all processes of a terminal or a service. We end when the pipe does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Mesa's software renderer would have a thread for each processor in each engine. A small
    # picture takes a fifth less time on the thread that asks for it.
    if threads == 1:
        os.environ.setdefault("LP_NUM_THREADS", "0")
    model = pickle.loads(checkpoint)
    del checkpoint
    try:
        engine = make(model, threads=threads)
    except Exception as error:
        _reply(pipe, True, error, [model])
        return
    _reply(pipe, False, None, [model])
    gc.collect()
    gc.freeze()  # this process has no other model, ever
    try:
        while True:
            method, arguments, known = _loads(pipe.recv_bytes(), [model], shared)
            try:
                failed, result = False, getattr(engine, method)(*arguments)
            except Exception as error:
                failed, result = True, error
            _reply(pipe, failed, result, [model, *known])
    except (EOFError, OSError):  # nobody listens any more
        engine.close()


def _reply(pipe: Connection, failed: bool, result: Any, known: Sequence[Any]) -> None:
    try:
        data = _dumps((failed, result), known)
    except Exception as error:  # some exceptions cannot be pickled
        data = _dumps((True, RuntimeError(f"{type(result).__name__}: {result} ({error})")), known)
    pipe.send_bytes(data)


class _Pickler(pickle.Pickler):
    """Names what the other side has by its number, and writes tensors as bytes.

    Torch's own way for tensors costs ten times as much, and an answer has a dozen of them.
    """

    def __init__(self, file: io.BytesIO, known: Sequence[Any], shared: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._numbers = {id(item): number for number, item in enumerate(known)}
        self._shared = shared
        self._used = 0  # bytes

    def persistent_id(self, item: Any) -> int | tuple[int, torch.dtype, torch.Size] | None:
        """The number of something that the other side has, or a tensor's place in shared memory."""
        if type(item) is not Tensor or self._shared is None or item.nbytes < LARGE:
            return self._numbers.get(id(item))
        start, self._used = self._used, self._used + item.nbytes
        if self._used > len(self._shared):
            return None
        place = start, item.dtype, item.shape
        _shared_tensor(self._shared, *place).copy_(item)
        return place

    def reducer_override(self, item: Any) -> Any:
        """How tensors are written."""
        if type(item) is Tensor:
            return _tensor, (item.numpy().tobytes(), item.dtype, tuple(item.shape))
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads what a `_Pickler` wrote, with the same things known in the same order."""

    def __init__(self, file: io.BytesIO, known: Sequence[Any], shared: Any) -> None:
        super().__init__(file)
        self._known, self._shared = known, shared

    def persistent_load(self, place: int | tuple[int, torch.dtype, torch.Size]) -> Any:
        """What we have under that number, or lies in shared memory until the next request."""
        if isinstance(place, int):
            return self._known[place]
        return _shared_tensor(self._shared, *place)


def _shared_tensor(shared: Any, start: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    return torch.frombuffer(shared, dtype=dtype, count=shape.numel(), offset=start).view(shape)


def _tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:  # which torch reads no tensor from
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)


def _dumps(item: Any, known: Sequence[Any], shared: Any = None) -> memoryview:
    file = io.BytesIO()
    _Pickler(file, known, shared).dump(item)
    return file.getbuffer()


def _loads(data: bytes, known: Sequence[Any], shared: Any = None) -> Any:
    return _Unpickler(io.BytesIO(data), known, shared).load()
