"""How quickly the page follows a hand: strokes of a pen, sliders of a scene of one's own.

In a real browser, with real servers, all on this machine: it is the whole way from the hand to what
is shown that counts. Chromium takes a good part of the processor itself.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.part import Figures, Settings
from benchmarks.servers import ours
from benchmarks.table import Table

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    # As on a machine without a graphics card: the processor draws, WebGL too.
    *("--disable-gpu", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
)
PAUSE = 150  # ms between strokes: a hand is no faster
WARM_UP = 3  # strokes, and seconds of sliding, that do not count
STROKES, SLIDING = "stroke to inference", "slider"

# Moves the sliders of an object as a hand does, and tells when each frame was inferred.
SLIDE = """
async ([seconds, warmUp]) => {
  const sliders = ["x", "y", "yaw"].map((axis) =>
    document.querySelector(`[aria-label="Object 1: ${axis}"]`));
  const begin = performance.now();
  while (performance.now() - begin < 1000 * (seconds + warmUp)) {
    const phase = (performance.now() - begin) / 1000;
    sliders.forEach((slider, i) => {
      const middle = (Number(slider.max) + Number(slider.min)) / 2;
      const reach = (Number(slider.max) - Number(slider.min)) / 4;
      slider.value = middle + reach * Math.sin(phase * (1 + 0.3 * i));
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await new Promise((done) => setTimeout(done, 20));
  }
  return performance.getEntriesByName("own scene inferred")
    .map((mark) => (mark.startTime - begin) / 1000);
}
"""


@dataclass(frozen=True)
class Browser:
    """The page in Chromium: from a stroke to its inference, and frames while sliders move."""

    strokes: int = 40
    """Short strokes of the pen."""
    seconds: float = 10.0
    """For which sliders move."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for the strokes and one for the sliders."""
        figures = Figures()
        program = os.environ.get("AIRSCENE_BROWSER") or next(
            filter(None, map(shutil.which, NAMES)), None
        )
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            figures.skipped["page"] = "needs playwright: install airscene[test]"
            return figures
        if program is None:
            figures.skipped["page"] = "no Chromium on the PATH; name one by AIRSCENE_BROWSER"
            return figures
        flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=program, args=flags)
            for name, watch in ((STROKES, self._strokes), (SLIDING, self._slide)):
                row = watch(chromium)
                figures.rows.append({"what": name, **row})
                say(f"{name}: {row}")
            chromium.close()
        return figures

    def tables(self, figures: Figures) -> dict[str, Table]:
        """What was measured, in milliseconds and frames a second."""
        rows = [
            (
                row["what"],
                str(row["times"]),
                *(f"{row[key]:.0f}" for key in ("median_ms", "p90_ms")),
                f"{row['per_second']:.1f}" if "per_second" in row else "",
            )
            for row in figures.rows
        ]
        return {
            "page": Table(
                "The page in Chromium",
                ("", "times", "median, ms", "90th percentile, ms", "a second"),
                tuple(rows),
                note="Strokes: from the pen to the answer that is shown. Slider: between frames of "
                "a scene that is drawn, inferred and shown while its sliders move.",
            )
        }

    def _strokes(self, chromium: Any) -> dict[str, Any]:
        with _page(chromium, "multi-mnist") as page:
            page.wait_for_selector("#digits-readout .big")
            box = page.locator(".sheet canvas").bounding_box()
            for i in range(self.strokes + WARM_UP):
                if i == WARM_UP:
                    page.evaluate("performance.clearMeasures()")
                if i % 8 == 0:
                    page.get_by_role("button", name="Clear").click()
                x = box["x"] + box["width"] * (0.15 + 0.1 * (i % 8))
                y = box["y"] + box["height"] * 0.3
                page.mouse.move(x, y)
                page.mouse.down()
                page.mouse.move(x, y + 0.2 * box["height"], steps=4)
                page.mouse.up()
                page.wait_for_timeout(PAUSE)
            spent = page.evaluate(
                f"performance.getEntriesByName('{STROKES}').map((entry) => entry.duration)"
            )
        return _times(spent)

    def _slide(self, chromium: Any) -> dict[str, Any]:
        with _page(chromium, "tabletop") as page:
            page.wait_for_selector("#readout .figures")
            page.get_by_role("radio", name="A scene of your own").click()
            page.wait_for_selector(".controls select")
            moments = page.evaluate(SLIDE, [self.seconds, WARM_UP])
        counted = [moment for moment in moments if moment > WARM_UP]
        gaps = [1e3 * (b - a) for a, b in pairwise(counted)]
        return {**_times(gaps), "per_second": len(counted) / self.seconds}


@contextmanager
def _page(chromium: Any, checkpoint: str) -> Iterator[Any]:
    """The page of a server with a shipped model."""
    with ours(checkpoint=CHECKPOINTS / checkpoint) as server:
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.goto(server.url)
        try:
            yield page
        finally:
            page.close()


def _times(milliseconds: list[float]) -> dict[str, Any]:
    deciles = statistics.quantiles(milliseconds, n=10) if len(milliseconds) > 1 else milliseconds
    return {
        "times": len(milliseconds),
        "median_ms": statistics.median(milliseconds),
        "p90_ms": deciles[-1],
    }
