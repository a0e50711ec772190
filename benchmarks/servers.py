"""Servers as their users start them: a process of their own, on a free port of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STARTING = 120.0  # s, at most, until a server is ready
ENDING = 30.0  # s, at most, from SIGTERM to its end


class ServerError(RuntimeError):
    """A server did not start, or not end."""


class Server:
    """A server that runs while the block does.

    Args:
        command: that starts it.
        port: that the command names.
        ready: path that answers 200 once it can be asked.
        environment: of the process, beside ours.
    """

    def __init__(
        self, command: list[str], port: int, ready: str, environment: dict[str, str] | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._ready = command, ready
        self._environment = os.environ | (environment or {})

    def __enter__(self) -> Self:
        """Starts it, and waits until it is ready.

        Raises:
            ServerError: it is not.
        """
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it and whatever it started."""
        self.close()

    def launch(self) -> None:
        """Starts it; it has to be closed."""
        self._began = time.perf_counter()
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (see `close`)
        # A session of its own: whatever it starts ends with it.
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Waits until it is ready.

        Raises:
            ServerError: it is not.
        """
        while self.get(self._ready)[0] != 200:
            late = time.perf_counter() - self._began > STARTING
            if self.process.poll() is not None or late:
                raise ServerError(f"{' '.join(self._command)} did not get ready: {self.errors}")
            time.sleep(0.02)
        self.seconds_to_ready = time.perf_counter() - self._began

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Keeps it, and whatever it started, from using a processor: some do so unasked."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it and whatever it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text; status 0 where nobody listens."""
        try:
            with _open(urllib.request.Request(self.url + path, headers=headers)) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()
        except OSError:
            return 0, {}, ""

    def put(self, path: str, data: bytes, media: str) -> int:
        """Puts some data there; gives the status."""
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": media}, method="PUT"
        )
        with _open(request) as answer:
            return int(answer.status)

    @property
    def memory(self) -> int:
        """Bytes that it and all its processes take, what they share counted once."""
        return sum(_proportional(process) for process in _family(self.process.pid))

    @property
    def errors(self) -> str:
        """The last that it wrote to standard error; until it is closed."""
        self._errors.seek(0)
        return self._errors.read().strip()[-2000:]


def ours(**settings: object) -> Server:
    """`python -m service serve`; settings are those of the environment, without AIRSCENE_."""
    environment = {f"AIRSCENE_{key.upper()}": str(value) for key, value in settings.items()}
    environment.setdefault("AIRSCENE_LOG_LEVEL", "warning")
    port = _free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    return Server(command, port, "/readyz", environment)


def litserve(**options: Any) -> Server:
    """The same engine behind LitServe; options are those of `benchmarks.litserve_app`."""
    port = _free_port()
    settings = json.dumps({"port": port, **options})
    command = [sys.executable, "-m", "benchmarks.litserve_app", settings]
    return Server(command, port, "/health")


def _open(request: urllib.request.Request) -> Any:
    # Whatever proxy is set, it is not for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(pid: int) -> list[int]:
    """A process and all that it started, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def _proportional(pid: int) -> int:
    """Bytes of a process, each page divided by how many share it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return 1024 * int(line.split()[1])
