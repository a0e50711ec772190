"""What a server must stand: its start, pollers, overload, abuse, a new model, its end."""

from __future__ import annotations

import random
import re
import signal
import statistics
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from benchmarks.hostile import corpus, damaged, unusable, usable
from benchmarks.load import Load, begin, send
from benchmarks.servers import Server, ours

OVERLOAD = 4  # times the capacity
CONNECTIONS = 400  # of those who overload: enough that a request finds one that is free
HOSTILE_CLIENTS, HOSTILE_AT_ONCE = 8, 1000
LIFE_CLIENTS, LIFE_SECONDS = 8, 40.0

Row = dict[str, Any]


def start(rounds: int) -> list[Row]:
    """Seconds from the command to the first 200 of /readyz."""
    seconds = []
    for _ in range(rounds):
        with ours() as server:
            seconds.append(server.seconds_to_ready)
    return [{"figure": "start", "seconds": statistics.median(seconds), "rounds": seconds}]


def polling(server: Server, photo: bytes, clients: int, seconds: float) -> Row:
    """304 answers a second to pollers of a camera's scene."""
    server.put("/cameras/bench/frame", photo, "image/png")
    path = "/cameras/bench/scene"
    _, headers, _ = server.get(path)
    tag = next(value for name, value in headers.items() if name.lower() == "etag")
    result = send(Load(server.url + path, "GET", {"If-None-Match": tag}).of(clients, seconds))
    return {
        "figure": "polling",
        "clients": clients,
        "answers_per_second": result.statuses.get("304", 0) / result.seconds,
        "statuses": result.statuses,
        "p99": result.quantile(0.99, "304"),
        "clients_cpu": result.cpu_seconds / result.seconds,
    }


def overload(load: Load, clients: int, seconds: float) -> Row:
    """Requests at a rate of several times what the server answers at its best."""
    send(load.of(clients, 2.0))
    capacity = send(load.of(clients, 5.0)).rate
    flood = replace(load, rate=OVERLOAD * capacity)
    result = send(flood.of(CONNECTIONS, seconds))
    return {
        "figure": "overload",
        "capacity": capacity,
        "asked_per_second": sum(result.statuses.values()) / result.seconds,
        "seconds": result.seconds,
        "statuses": result.statuses,
        "wrong": result.unlike("200", "503", "429"),
        "p50": result.quantile(0.5),
        "p99": result.quantile(0.99),
    }


def hostile(server: Server, number: int, seed: int) -> Row:
    """Bombs, fragments and damaged files, and what they leave behind."""
    rng, good = random.Random(seed), corpus()
    every = [data for _, data in (*usable(), *unusable())]
    statuses: Counter[str] = Counter()
    memory = []
    for begun in range(0, number, HOSTILE_AT_ONCE):
        count = min(HOSTILE_AT_ONCE, number - begun)
        bodies = [*every, *(damaged(rng.choice(good), rng) for _ in range(count))][:count]
        load = Load.posting(f"{server.url}/infer", bodies, "application/octet-stream")
        result = send(replace(load.of(HOSTILE_CLIENTS, 600.0), requests=count))
        statuses.update(result.statuses)
        memory.append(server.memory)
    after = f"{len(memory)} x {HOSTILE_AT_ONCE}"
    return {
        "figure": "hostile",
        "requests": sum(statuses.values()),
        "statuses": dict(statuses),
        "wrong": sum(n for code, n in statuses.items() if re.fullmatch("5..|lost", code))
        - statuses["503"],
        "memory": memory,
        "growth": memory[-1] / memory[0] - 1 if len(memory) > 1 else None,
        "after": after,
    }


def life(bodies: list[bytes], media: str) -> Row:
    """Failed requests while the model is loaded anew, and while the server ends."""
    with ours() as server:
        load = Load.posting(f"{server.url}/infer", bodies, media).of(LIFE_CLIENTS, LIFE_SECONDS)
        asking = begin(replace(load, until_refused=True))
        time.sleep(1.0)
        server.process.send_signal(signal.SIGHUP)
        reloaded = _until_reloaded(server)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(30)
        result = asking.result()
        errors = server.errors
    return {
        "figure": "life",
        "reloaded": reloaded,
        "exit_code": code,
        "statuses": result.statuses,
        "wrong": result.unlike("200"),
        "errors": errors,
    }


def _until_reloaded(server: Server) -> bool:
    until = time.monotonic() + LIFE_SECONDS / 2
    while time.monotonic() < until:
        if 'airscene_reloads_total{result="done"} 1.0' in server.get("/metrics")[2]:
            return True
        time.sleep(0.1)
    return False


def lines(row: Row) -> list[tuple[str, str, str]]:
    """A row of figures beside its bar, for people; none of those that are compared."""
    statuses = ", ".join(f"{n} x {status}" for status, n in row.get("statuses", {}).items())
    match row["figure"]:
        case "latency" if row["contender"] == "airscene":
            p50, p99 = 1e3 * row["p50"], 1e3 * row["p99"]
            return [("one client, p50 / p99", f"{p50:.1f} / {p99:.1f} ms", "12 / 30 ms")]
        case "start":
            return [("from the command to ready", f"{row['seconds']:.1f} s", "10 s")]
        case "polling":
            found = f"{row['answers_per_second']:.0f} 1/s"
            return [(f"304 for {row['clients']} pollers", found, "2000 1/s")]
        case "overload":
            what = f"{row['asked_per_second']:.0f} requests/s, {row['seconds']:.0f} s"
            return [
                (f"{what}: neither 200, 503 nor 429", f"{row['wrong']} ({statuses})", "0"),
                (f"{what}: p50 / p99 of the 200", f"{row['p50']:.2f} / {row['p99']:.2f} s", "1 s"),
            ]
        case "life":
            done = "reload and SIGTERM" if row["reloaded"] else "SIGTERM (no reload was seen)"
            return [(f"{done} under load: failed requests", f"{row['wrong']} ({statuses})", "0")]
        case "hostile":
            growth = "–" if row["growth"] is None else f"{100 * row['growth']:+.1f} %"
            return [
                (f"{row['requests']} hostile requests: 5xx but 503", f"{row['wrong']}", "0"),
                ("memory after the first thousand of them", growth, "+5 %"),
            ]
    return []
