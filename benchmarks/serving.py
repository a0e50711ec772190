"""The service under load: how fast it answers, and what it does when there is too much.

Servers run as processes of their own, as their users start them, and clients in another. What is
compared takes turns in one run.
"""

from __future__ import annotations

import importlib.util
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from benchmarks import trials
from benchmarks.load import Load, send
from benchmarks.part import Figures, Settings
from benchmarks.servers import Server, ServerError, litserve, ours
from benchmarks.table import Table, digits
from inference.checkpoint import Checkpoint, load_checkpoint
from renderer import open_renderer
from renderer.prior import sample
from service.engine import Engine
from service.lane import decoder_for
from service.settings import Settings as ServiceSettings

OURS, CEILING = "airscene", "the engine alone"
BATCH = 16  # pictures, of all who batch
# How users of LitServe start it, from its first page to all that its documentation advises.
LITSERVE: dict[str, dict[str, Any]] = {
    "LitServe": {"batch": 1, "wait": 0.0, "workers": 1, "fast": False},
    "LitServe, batching": {"batch": BATCH, "wait": 0.002, "workers": 1, "fast": False},
    "LitServe, batching, 2 workers": {"batch": BATCH, "wait": 0.002, "workers": 2, "fast": False},
}
SIDE, PICTURES = 128, 16  # px and number of the pictures that are sent
BOUNDARY = "fromthebenchmark"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FIGURES = ("speed", "start", "polling", "overload", "life", "hostile")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Serving:
    """Speed of the service beside LitServe and the engine alone; overload, abuse, reload, end."""

    figures: tuple[str, ...] = FIGURES
    """What to measure: speed, start, polling, overload, life, hostile."""
    seconds: float = 3.0
    """That each contender is asked in each round."""
    clients: int = 32
    """That ask at once, where throughput counts."""
    overload_seconds: float = 60.0
    """Of requests at four times the capacity."""
    hostile: int = 10_000
    """Requests that mean harm."""

    def measure(self, settings: Settings, say: Say) -> Figures:
        """One row for each figure of each contender."""
        unknown = set(self.figures) - set(FIGURES)
        if unknown:
            raise ValueError(
                f"service: unknown figure {min(unknown)!r}; choose {' or '.join(FIGURES)}"
            )
        figures = Figures()
        checkpoint = load_checkpoint(ServiceSettings().checkpoint)
        files = photos(checkpoint, settings.seed)
        forms = [_form(file) for file in files]
        if "speed" in self.figures:
            self._speed(figures, checkpoint, files, forms, settings, say)
        if "start" in self.figures:
            say("start")
            figures.rows.extend(trials.start(min(3, settings.rounds)))
        with ExitStack() as stack:
            if {"polling", "overload", "hostile"} & set(self.figures):
                server = stack.enter_context(ours())
            if "polling" in self.figures:
                say("polling")
                figures.rows.append(trials.polling(server, files[0], self.clients, self.seconds))
            if "overload" in self.figures:
                say("overload")
                load = Load.posting(f"{server.url}/infer", forms, FORM)
                figures.rows.append(trials.overload(load, self.clients, self.overload_seconds))
            if "hostile" in self.figures:
                say("hostile")
                figures.rows.append(trials.hostile(server, self.hostile, settings.seed))
        if "life" in self.figures:
            say("life")
            figures.rows.append(trials.life(forms, FORM))
        return figures

    def _speed(
        self,
        figures: Figures,
        checkpoint: Checkpoint,
        files: list[bytes],
        forms: list[bytes],
        settings: Settings,
        say: Say,
    ) -> None:
        """Requests a second of all contenders in turns, and the latency of one client."""
        names = LITSERVE if importlib.util.find_spec("litserve") else {}
        if not names:
            figures.skipped["LitServe"] = "it is not installed: pip install litserve"
        with ExitStack() as stack:
            say("starting the servers")
            servers: dict[str, Server] = {OURS: ours()}
            servers |= {name: litserve(**options) for name, options in names.items()}
            for server in servers.values():
                server.launch()
                stack.callback(server.close)
            for server in servers.values():
                server.wait()
            alone = Alone(checkpoint, files)
            rates: dict[str, list[float]] = {name: [] for name in (*servers, CEILING)}
            waits: dict[str, list[float]] = {name: [] for name in servers}
            cost: list[float] = []
            begin = time.perf_counter()
            for turn in range(-1, settings.rounds):  # the first does not count
                if turn >= 3 and time.perf_counter() - begin > 15 * settings.patience:
                    break
                for name, server in servers.items():
                    say(f"{name}, round {turn + 1}")
                    load = Load.posting(f"{server.url}/infer", forms, FORM)
                    with _resting(servers, but=name):
                        many = send(load.of(self.clients, self.seconds if turn >= 0 else 1.0))
                        few = send(load.of(1, self.seconds / 2 if turn >= 0 else 0.5))
                    if many.unlike("200") or few.unlike("200"):
                        raise ServerError(f"{name} answered {many.statuses} and {few.statuses}")
                    if turn >= 0:
                        rates[name].append(many.rate)
                        waits[name] += few.latencies["200"]
                        cost.append(many.cpu_seconds / sum(many.statuses.values()))
                say(f"{CEILING}, round {turn + 1}")
                with _resting(servers):
                    rate = alone.rate(self.seconds if turn >= 0 else 1.0)
                if turn >= 0:
                    rates[CEILING].append(rate)
            alone.close()
        for name, values in rates.items():
            figures.rows.append(
                {
                    "figure": "throughput",
                    "contender": name,
                    "clients": self.clients if name in servers else None,
                    "requests_per_second": _spread(values),
                    "ratio": _ratio(rates[OURS], values),
                }
            )
        for name, values in waits.items():
            figures.rows.append(
                {
                    "figure": "latency",
                    "contender": name,
                    "answers": len(values),
                    "p50": statistics.median(values),
                    "p99": sorted(values)[int(0.99 * len(values))],
                }
            )
        figures.rows.append(
            {"figure": "clients", "cpu_seconds_per_request": statistics.median(cost)}
        )

    def tables(self, figures: Figures) -> dict[str, Table]:
        """Speed beside the others, and everything else beside its bar."""
        rows = figures.rows
        waits = {row["contender"]: row for row in rows if row["figure"] == "latency"}
        speed = []
        for row in (row for row in rows if row["figure"] == "throughput"):
            rate, wait = row["requests_per_second"], waits.get(row["contender"])
            speed.append(
                (
                    row["contender"],
                    f"{digits(rate['median'])} ({digits(rate['min'])}–{digits(rate['max'])})",
                    f"{row['ratio']:.2f}",
                    *(f"{1e3 * wait[key]:.1f}" if wait else "–" for key in ("p50", "p99")),
                )
            )
        cost = [row["cpu_seconds_per_request"] for row in rows if row["figure"] == "clients"]
        note = "".join(
            f"airscene's ratio is the median over the rounds. The clients themselves took "
            f"{1e3 * value:.2f} ms of a processor for each request."
            for value in cost
        )
        found = {}
        if speed:
            found["service-speed"] = Table(
                f"POST /infer, {SIDE} x {SIDE} PNG: requests a second of {self.clients} clients, "
                "and ms of a single one",
                ("contender", "requests/s", "airscene is faster by", "p50", "p99"),
                tuple(speed),
                note=note,
            )
        cared = [line for row in rows for line in trials.lines(row)]
        if cared:
            found["service-care"] = Table(
                "Too many, too early, too bad", ("figure", "measured", "bar"), tuple(cared)
            )
        return found


class Alone:
    """The engine in a loop with decoding, without HTTP: the most that there is to be had of one.

    Args:
        checkpoint: loaded.
        files: that it decodes, over and over.
    """

    def __init__(self, checkpoint: Checkpoint, files: list[bytes]) -> None:
        settings = ServiceSettings()
        self._engine = Engine(checkpoint, threads=settings.threads)
        self._engine.warm_up()
        self._decoder = decoder_for(checkpoint, settings)
        self._files = [files[i % len(files)] for i in range(BATCH)]

    def rate(self, seconds: float) -> float:
        """Pictures a second."""
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self._engine.infer_batch([self._decoder.decode(file) for file in self._files])
            done += BATCH
        return done / (time.perf_counter() - began)

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()


@contextmanager
def _resting(servers: dict[str, Server], but: str | None = None) -> Iterator[None]:
    """All of them use no processor meanwhile, but one."""
    with ExitStack() as stack:
        for name, server in servers.items():
            if name != but:
                stack.enter_context(server.resting())
        yield


def photos(checkpoint: Checkpoint, seed: int) -> list[bytes]:
    """PNG files of sampled scenes."""
    renderer = open_renderer(checkpoint.spec, height=SIDE, width=SIDE, supersample=2)
    scene = sample(checkpoint.spec, PICTURES, generator=torch.Generator().manual_seed(seed))
    files = []
    for pixels in renderer.render_bytes(scene).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    renderer.close()
    return files


def _form(file: bytes) -> bytes:
    """What `curl -F image=@photo.png` sends."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": values,
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """How much faster we are, by the median over the rounds, which are side by side."""
    found = [a / b if b else math.nan for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found)
