"""The second and the third view in a real browser."""

import base64
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, Route, expect

from inference.checkpoint2d import load_checkpoint2d
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "examples" / "photos"


def png(side: int) -> str:
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def columns(photo: bytes) -> list[int]:
    """Which columns of a picture have ink."""
    image = Image.open(io.BytesIO(photo)).convert("L")
    assert image.size == (50, 50)
    return [x for x in range(50) if max(image.getpixel((x, y)) for y in range(50)) > 60]  # type: ignore[type-var]


class FlatServer:
    """Finds one thing for each run of columns with ink, as a model of flat pictures answers."""

    def __init__(self) -> None:
        self.photos: list[bytes] = []

    def __call__(self, route: Route) -> None:
        photo = route.request.post_data_buffer
        assert photo is not None
        self.photos.append(photo)
        inked = columns(photo)
        runs = [x for x in inked if x - 1 not in inked]
        objects = [
            {
                "id": i,
                "score": 0.9,
                "bbox2d": {"x": x, "y": 10.0, "width": 12.0, "height": 30.0},
                "drawn": png(50),
            }
            for i, x in enumerate(runs)
        ]
        count = [float(n == len(runs)) for n in range(4)]
        route.fulfill(
            json={
                "count": {"value": len(runs), "probabilities": count},
                "objects": objects,
                "drawn": png(50),
            }
        )


@pytest.fixture
def flat(visit: Callable[..., Any], flat_model: dict[str, Any]) -> tuple[Any, FlatServer]:
    """A page that believes that its server reads digits."""
    visited, server = visit(), FlatServer()
    visited.page.route("**/v1/model", lambda route: route.fulfill(json=flat_model))
    visited.page.route("**/v1/examples", lambda route: route.fulfill(json={"pictures": []}))
    visited.page.route("**/v1/infer*", server)
    visited.open()
    visited.page.wait_for_selector("#digits-readout .big")
    return visited, server


def stroke(page: Page, *points: tuple[float, float], lift: bool = True) -> None:
    box = page.locator(".sheet canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    if lift:
        page.mouse.up()


def test_what_is_drawn_is_inferred_while_it_is_drawn(flat: tuple[Any, FlatServer]) -> None:
    visited, server = flat
    page = visited.page
    big = page.locator("#digits-readout .big")
    expect(big).to_have_text("0things")
    stroke(page, (0.2, 0.2), (0.2, 0.8), lift=False)
    expect(big).to_have_text("1thing")  # the pen is still down
    page.mouse.up()
    stroke(page, (0.5, 0.2), (0.5, 0.8))
    stroke(page, (0.8, 0.2), (0.8, 0.8))
    expect(big).to_have_text("3things")
    # In one go: the next answer makes them anew.
    strokes = page.evaluate(
        "[...document.querySelectorAll('.sheet .window')]"
        ".map((one) => getComputedStyle(one).stroke)"
    )
    assert len(strokes) == 3
    # 1st red, 2nd green, 3rd blue.
    for k, colour in enumerate(strokes):
        channels = [int(value) for value in colour[4:-1].split(",")]
        assert channels.index(max(channels)) == k
    first = columns(server.photos[-1])[0]
    expect(page.locator(".sheet .window").first).to_have_attribute("x", str(first))
    assert page.locator(".tiles img").count() == 4  # three steps and all of them together
    page.get_by_role("button", name="Clear").click()
    expect(big).to_have_text("0things")


def farthest(page: Any, drawn: list[tuple[float, float]]) -> float:
    """How far the middle of an attention window is from what was drawn, px of the canvas."""
    windows = page.evaluate(
        "[...document.querySelectorAll('.sheet .window')].map((one) =>"
        " ['x', 'y', 'width', 'height'].map((name) => Number(one.getAttribute(name))))"
    )
    middles = sorted((x + width / 2, y + height / 2) for x, y, width, height in windows)
    if len(middles) != len(drawn):
        return math.inf
    return max(math.dist(*pair) for pair in zip(middles, drawn, strict=True))


def test_the_shipped_model_reads_what_is_drawn(
    visit: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    folder = ROOT / "checkpoints" / "multi-mnist"
    app = create_app(Settings(checkpoint=folder), loaded=load_checkpoint2d(folder))
    with serve(app) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.02)
        visited = visit(at=str(client.base_url))
        page = visited.open()
        big = page.locator("#digits-readout .big")
        expect(big).to_have_text("0things")
        stroke(page, (0.2, 0.15), (0.2, 0.5))  # a one
        expect(big).to_have_text("1thing")
        stroke(page, (0.6, 0.55), (0.8, 0.55), (0.65, 0.9))  # a seven
        expect(big).to_have_text("2things")
        # Two things are counted before the seven is finished: the windows move with it.
        drawn = [(10.0, 16.0), (35.0, 36.0)]
        deadline = time.monotonic() + 10
        while farthest(page, drawn) >= 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert farthest(page, drawn) < 4
        assert page.evaluate("performance.getEntriesByName('stroke to inference').length") > 2
        visited.context.close()  # before its server ends


def test_sprites_and_the_keyboard(flat: tuple[Any, FlatServer]) -> None:
    visited, server = flat
    page = visited.page
    page.locator(".sheet canvas").focus()
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Space")
    expect(page.locator("#digits-readout .big")).to_have_text("1thing")
    page.keyboard.press("Delete")
    expect(page.locator("#digits-readout .big")).to_have_text("0things")
    page.get_by_role("radio", name="square").click()
    stroke(page, (0.25, 0.5))
    expect(page.locator("#digits-readout .big")).to_have_text("1thing")
    inked = columns(server.photos[-1])
    assert (inked[0], inked[-1]) == (6, 18)
    found = Axe().run(page).response["violations"]
    assert not found, found


def test_a_view_that_the_model_is_not_for_says_what_to_start(
    visit: Callable[..., Any], flat: tuple[Any, FlatServer]
) -> None:
    page = flat[0].page
    page.get_by_role("tab", name="Tabletop").click()
    expect(page.locator("#tabletop")).to_contain_text("make serve CHECKPOINT=checkpoints/tabletop")
    page = visit().open("/#digits")
    expect(page.locator("#digits")).to_contain_text("CHECKPOINT=checkpoints/multi-mnist")


def test_how_the_network_looks_at_a_picture(visit: Callable[..., Any]) -> None:
    visited = visit()
    visited.open()
    page = visited.inferred()
    page.get_by_role("tab", name="Training").click()
    page.wait_for_selector("#scan canvas")
    answer = json.loads(page.locator("#answer pre").last.text_content())
    seen = [item["class_id"] for item in answer["objects"]]
    assert page.locator("#scan .head").all_text_contents() == [
        f"{i + 1}{name}" for i, name in enumerate(seen)
    ]
    expect(page.locator("#scan-caption")).to_contain_text(f"{len(seen)} found in")
    # An empty table: the first step finds nothing left already.
    page.get_by_role("tab", name="Tabletop").click()
    page.locator("#file").set_input_files(PHOTOS / "table-00.png")
    expect(page.locator("#readout")).to_contain_text("An empty table")
    page.get_by_role("tab", name="Training").click()
    expect(page.locator("#scan li").first).to_contain_text("so it stops")
    expect(page.locator("#measured")).to_contain_text("number of objects right")
    page.wait_for_selector("#gallery img")
    page.locator("#gallery button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
