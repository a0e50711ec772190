"""The part about the service: what it makes of what it measured, and one small run of all."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, record, trials
from benchmarks.part import Settings
from benchmarks.parts import Parts
from benchmarks.servers import Server, ServerError
from benchmarks.serving import FIGURES, Serving

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_says_what_was_measured() -> None:
    result = record.read(DOCS / page.SERVICE_FIGURES)
    text = (DOCS / page.SERVICE_PAGE).read_text(encoding="utf-8")
    assert page.refreshed(text, page.blocks(result)) == text
    shown = re.findall(r"<!-- begin: ([\w-]+) -->", text)
    assert sorted(shown) == sorted(page.blocks(result))


def test_the_page_can_be_made_again(tmp_path: Path) -> None:
    result = record.read(DOCS / page.SERVICE_FIGURES)
    text = (DOCS / page.SERVICE_PAGE).read_text(encoding="utf-8")
    (tmp_path / page.SERVICE_PAGE).write_text(
        re.sub(r"(<!-- begin: [\w-]+ -->\n).*?(<!-- end -->)", r"\1old\n\2", text, flags=re.S),
        encoding="utf-8",
    )
    page.make(result, tmp_path)
    assert (tmp_path / page.SERVICE_PAGE).read_text(encoding="utf-8") == text


LATENCY = {"figure": "latency", "p50": 0.01, "p99": 0.02}
LIFE = {"figure": "life", "reloaded": True, "wrong": 2, "statuses": {"200": 7, "lost": 2}}
HOSTILE = {"figure": "hostile", "requests": 9, "wrong": 1, "growth": None}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"figure": "start", "seconds": 4.21}, [("4.2 s", "10 s")]),
        (LATENCY | {"contender": "airscene"}, [("10.0 / 20.0 ms", "12 / 30 ms")]),
        (LATENCY | {"contender": "LitServe"}, []),
        (LIFE, [("2 (7 x 200, 2 x lost)", "0")]),
        (HOSTILE, [("1", "0"), ("–", "+5 %")]),
        (HOSTILE | {"growth": 0.031}, [("1", "0"), ("+3.1 %", "+5 %")]),
    ],
)
def test_figures_stand_beside_their_bars(row: dict[str, Any], words: list[tuple[str, str]]) -> None:
    assert [line[1:] for line in trials.lines(row)] == words


def test_a_reload_that_was_not_seen_is_told() -> None:
    ((what, *_),) = trials.lines(
        {"figure": "life", "reloaded": False, "wrong": 0, "statuses": {"200": 1}}
    )
    assert "no reload was seen" in what


def test_an_unknown_figure_is_named() -> None:
    part = Parts(service=Serving(figures=("speed", "sped"))).service
    with pytest.raises(ValueError, match=r"unknown figure 'sped'; choose speed or"):
        part.measure(Settings(), lambda what: None)


def test_a_server_that_does_not_start_tells_why() -> None:
    with (
        pytest.raises(ServerError, match="no such thing"),
        Server(["python", "-c", "raise SystemExit('no such thing')"], 1, "/"),
    ):
        pass


def test_a_server_that_rests_uses_no_processor() -> None:
    busy = "import time\nwhile True: time.perf_counter()"
    server = Server(["python", "-c", busy], 1, "/")
    server.launch()

    def ticks() -> int:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def grows(least: int) -> None:
        start, deadline = ticks(), time.monotonic() + 30
        while ticks() < start + least:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    try:
        grows(2)
        with server.resting():
            time.sleep(0.1)  # until all of it has stopped
            before = ticks()
            time.sleep(0.2)
            assert ticks() == before
        grows(2)
    finally:
        server.close()


@pytest.mark.slow
def test_everything_on_the_smallest_scale(run: Any) -> None:
    small = ["--service.seconds", "0.5", "--service.overload-seconds", "2"]
    small += ["--service.clients", "4", "--service.hostile", "1050"]
    part = run("--only", "service", *small)["parts"]["service"]
    rows = {(row["figure"], row.get("contender", "")): row for row in part["rows"]}
    assert {figure for figure, _ in rows} == {
        *(set(FIGURES) - {"speed"}),
        *("throughput", "latency", "clients"),
    }
    assert rows["throughput", "airscene"]["ratio"] == 1
    assert rows["throughput", "the engine alone"]["requests_per_second"]["min"] > 0
    assert rows["latency", "airscene"]["p50"] <= rows["latency", "airscene"]["p99"]
    for figure in ("overload", "life", "hostile"):
        assert rows[figure, ""]["wrong"] == 0, rows[figure, ""]
    assert rows["life", ""]["reloaded"] and rows["life", ""]["exit_code"] == 0
    assert rows["hostile", ""]["requests"] == 1050
    assert set(rows["polling", ""]["statuses"]) == {"304"}
