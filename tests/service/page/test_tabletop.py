"""The first view in a real browser: every flow, and every way to fail."""

import base64
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Page, Route, expect

from service.app import create_app
from service.settings import Settings

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
CROWDED = PHOTOS / "table-09.jpg"

FIRST_LOAD = 700_000  # bytes

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


def names(page: Page) -> list[str]:
    """The classes in the table of objects, in the order in which they were found."""
    return [text.lstrip("0123456789") for text in page.locator(".thing-name").all_inner_texts()]


def violations(page: Page) -> list[str]:
    """What axe finds, and where."""
    found = Axe().run(page).response["violations"]
    return [f"{item['id']}: {node['html']}" for item in found for node in item["nodes"]]


def test_an_example_is_seen_at_once_and_everything_agrees(visit: Any) -> None:
    visited = visit(webgl=True)
    session = visited.context.new_cdp_session(visited.page)
    session.send("Network.enable")
    loaded: list[float] = []
    session.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
    visited.open()
    page = visited.inferred()
    answer = json.loads(page.locator("#answer pre").last.inner_text())
    seen = [item["class_id"] for item in answer["objects"]]
    assert sorted(seen) == sorted(
        item["class_id"] for item in json.loads(CROWDED.with_suffix(".json").read_text())["objects"]
    )
    assert [name.strip() for name in names(page)] == seen
    assert page.locator("#picture .tag").all_inner_texts() == seen
    assert page.locator("#picture .outline").count() == len(seen)
    assert page.locator("#readout .big").inner_text().startswith(str(len(seen)))
    assert page.locator("#space canvas").get_attribute("aria-label") == (
        f"The scene in three dimensions: {', '.join(seen)}"
    )
    assert "curl -F image=@table-09.jpg" in page.locator("#answer pre").first.inner_text()
    page.wait_for_load_state("networkidle")
    assert sum(loaded) <= FIRST_LOAD


def test_outlines_lie_where_the_service_says_that_the_objects_are(visit: Any) -> None:
    visited = visit()
    visited.open()
    page = visited.inferred()
    answer = json.loads(page.locator("#answer pre").last.inner_text())
    boxes = page.evaluate(
        "[...document.querySelectorAll('#picture .outline')].map((path) => path.getBBox())"
        ".map(({x, y, width, height}) => ({x, y, width, height}))"
    )
    for item, box in zip(answer["objects"], boxes, strict=True):
        assert box == pytest.approx(item["bbox2d"], abs=2.5)  # px
    # That needs no WebGL, which this page has not.
    expect(page.locator("#space")).to_contain_text("no WebGL")


def test_nothing_is_amiss_for_who_cannot_see_or_point(visit: Any) -> None:
    for theme in ("light", "dark"):
        visited = visit(color_scheme=theme)
        visited.open()
        page = visited.inferred()
        assert violations(page) == []
        page.get_by_role("radio", name="A scene of your own").click()
        expect(page.locator("#readout")).to_contain_text("off mm")
        assert violations(page) == []
        for view in ("Digits", "Training"):
            page.get_by_role("tab", name=view).click()
            if view == "Training":
                page.wait_for_selector("#scan canvas")
                page.wait_for_selector("#gallery img")
            assert violations(page) == []


def test_the_keyboard_is_enough(visit: Any) -> None:
    visited = visit(webgl=True)
    visited.open()
    page = visited.inferred()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Tabletop")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#digits")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#tabletop")).to_be_visible()
    # An object that is chosen in the table stands out in the picture.
    page.locator(".thing-name").nth(1).focus()
    page.keyboard.press("Enter")
    pressed = page.locator("#picture .tag[aria-pressed=true]")
    assert pressed.inner_text() == names(page)[1].strip()
    page.get_by_role("radio", name="Outlines").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Wipe")).to_be_focused()
    page.get_by_label("Wipe between the photo").focus()
    page.keyboard.press("End")
    assert page.locator(".wipe-line").evaluate("line => line.style.left") == "100%"
    page.locator("#space canvas").focus()
    before = page.locator("#space").screenshot()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    for _ in range(100):
        if page.locator("#space").screenshot() != before:
            break
    else:
        pytest.fail("the arrow keys turn nothing")


@pytest.mark.slow
def test_a_file_a_drop_a_paste_and_the_webcam(visit: Any) -> None:
    visited = visit()
    visited.open()
    page = visited.inferred()
    entries = page.locator("#history li")
    expect(entries).to_have_count(1)
    page.locator("#file").set_input_files(PHOTOS / "table-00.png")
    expect(entries).to_have_count(2)
    expect(page.locator("#readout")).to_contain_text("An empty table")
    transfer = """([name, content, kind]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
        document.body.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
            : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    photo = base64.b64encode((PHOTOS / "table-02.png").read_bytes()).decode()
    page.evaluate(transfer, ["dropped.png", photo, "dragenter"])
    expect(page.locator("#drop")).to_be_visible()
    page.evaluate(transfer, ["dropped.png", photo, "drop"])
    expect(entries).to_have_count(3)
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator("#answer pre").first).to_contain_text("image=@dropped.png")
    page.evaluate(transfer, ["pasted.png", photo, "paste"])
    expect(entries).to_have_count(4)
    page.get_by_role("button", name="Webcam").click()
    expect(page.locator("#webcam-take")).to_be_enabled()
    page.get_by_role("button", name="Take it").click()
    expect(entries).to_have_count(5)
    # What the browser's test picture shows is no table, and the page says so.
    expect(page.locator(".warnings")).to_contain_text("do not trust the answer")
    page.get_by_role("button", name="Show again: an empty table").click()
    expect(page.locator("#readout")).to_contain_text("An empty table")


def test_what_is_no_photo_is_said_to_be_none(visit: Any) -> None:
    visited = visit(expected=("422",))
    visited.open()
    page = visited.inferred()
    text = {"name": "notes.png", "mimeType": "image/png", "buffer": b"{not a picture}"}
    page.locator("#file").set_input_files(text)
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("not a PNG, JPEG or WebP")
    assert len(names(page)) == 3  # the photo from before is still there
    page.locator("#file").set_input_files(PHOTOS / "table-00.png")
    expect(notice).to_be_empty()


def test_a_scene_of_ones_own_is_drawn_and_inferred_while_it_moves(visit: Any) -> None:
    visited = visit()
    visited.open()
    page = visited.inferred()
    page.get_by_role("radio", name="A scene of your own").click()
    expect(page.locator("#readout")).to_contain_text("off mm")
    while page.locator(".controls select").count() > 1:
        page.get_by_role("button", name="Remove object 1").click()
    page.get_by_label("Object 1: class").select_option("cup")
    for axis, value in (("x", 120), ("y", -80), ("yaw", 45)):
        page.get_by_label(f"Object 1: {axis}", exact=True).fill(str(value))
    row = page.locator("tr.thing")
    expect(row).to_have_count(1)
    expect(row.locator("td").nth(1)).to_have_text(re.compile(r"^1(1|2)\d"))  # mm
    expect(row.locator("td").nth(2)).to_have_text(re.compile(r"^−(7|8)\d"))
    assert page.locator("#picture .truth").count() == 1
    page.get_by_role("button", name="Add an object").click()
    expect(page.locator(".controls select")).to_have_count(2)
    # At rest it is drawn at full size, and compared.
    page.get_by_role("radio", name="Difference").click()
    page.get_by_role("radio", name="A photo").click()
    page.locator("#file").set_input_files(PHOTOS / "table-00.png")
    expect(page.locator("#readout")).to_contain_text("An empty table")


DOWNLOADS = {
    "JSON": ("scene.json", '"frame_id": "table"'),
    "MJCF": ("scene.xml", "<mujoco"),
    "Detection3D": ("detections.json", '"detections"'),
    "BOP": ("results.csv", "scene_id,im_id"),
}


@pytest.mark.slow
def test_answers_can_be_taken_home(visit: Any) -> None:
    visited = visit(accept_downloads=True)
    visited.open()
    page = visited.inferred()
    buttons = page.locator("#downloads button")
    assert buttons.all_inner_texts() == list(DOWNLOADS)
    for button, (file, words) in zip(buttons.all(), DOWNLOADS.values(), strict=True):
        with page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename == file
        assert words in Path(download.value.path()).read_text()


def test_a_server_that_is_full_for_a_while_is_asked_again(visit: Any) -> None:
    visited = visit(expected=("503",))
    refusals = 2
    problem = {
        "type": "urn:airscene:problem:busy",
        "title": "Too many requests wait already",
        "detail": "64 pictures wait already; ask again then.",
        "status": 503,
    }

    def refuse(route: Route) -> None:
        nonlocal refusals
        if not refusals:
            route.continue_()
            return
        refusals -= 1
        route.fulfill(status=503, json=problem, headers={"Retry-After": "1"})

    visited.page.route("**/v1/infer", refuse)
    visited.open()
    expect(visited.page.get_by_role("alert")).to_contain_text("The server is busy")
    page = visited.inferred()
    assert not refusals
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_server_that_goes_and_comes_back(visit: Any) -> None:
    visited = visit(expected=("ERR_FAILED",))
    visited.open()
    page = visited.inferred()
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#file").set_input_files(PHOTOS / "table-00.png")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.locator("#lamp")).to_have_attribute("data-state", "gone")
    page.unroute("**/v1/**")
    # Nothing was lost meanwhile: the photo that was waiting is inferred.
    expect(page.locator("#readout")).to_contain_text("An empty table")
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator("#lamp")).to_have_attribute("data-state", "ok")


def test_a_key_is_asked_for_and_used(visit: Any, serve: Serve) -> None:
    secret = "k" * 16
    with serve(create_app(Settings(api_keys=f"me:{secret}"))) as client:  # type: ignore[arg-type]
        visited = visit(at=str(client.base_url), expected=("401", "503"))
        visited.open()
        page = visited.page
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        assert violations(page) == []
        for key in ("wrong" * 4, secret):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use it").click()
            if key != secret:
                expect(dialog).to_contain_text("was not taken")
        page = visited.inferred()
        assert len(names(page)) == 3
        assert "X-API-Key: $AIRSCENE_KEY" in page.locator("#answer pre").first.inner_text()
        assert secret not in page.content()
        page.goto("about:blank")  # before the server is gone, which the page would notice


@pytest.mark.slow
def test_it_fits_a_phone(visit: Any) -> None:
    visited = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    visited.open()
    page = visited.inferred()
    for view in ("Tabletop", "Digits", "Training"):
        page.get_by_role("tab", name=view).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
