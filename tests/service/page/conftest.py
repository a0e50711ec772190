"""A real browser on the page of a real server, with the shipped model."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "examples" / "photos"

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    # A graphics card's work by the processor, as on machines without one.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    # A camera that shows a test picture, and nobody to ask whether it may be used.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)

NO_WEBGL = """
const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind.startsWith("webgl") ? null : get.call(this, kind, ...more);
};
"""


def find_browser() -> str | None:
    """AIRSCENE_BROWSER, or Chromium or Chrome on the PATH."""
    given = os.environ.get("AIRSCENE_BROWSER")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


expect.set_options(timeout=60_000)


# No wider than a module: while Playwright runs, no other test of this thread can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on the PATH; install one, or name it by AIRSCENE_BROWSER")
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(serve: Serve) -> Iterator[str]:
    """Of a server with the shipped model, ready."""
    with serve(create_app(Settings())) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.02)
        yield str(client.base_url)


class Visit:
    """A page that is open, and everything that went wrong in it."""

    def __init__(self, context: BrowserContext, page: Page, address: str) -> None:
        self.context, self.page, self.address = context, page, address
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.address + path)
        return self.page

    def inferred(self) -> Page:
        """Waits for the first answer."""
        self.page.wait_for_selector("#readout .figures")
        expect(self.page.locator("#picture")).to_have_attribute("data-waiting", "false")
        return self.page


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visiting]:
    """Opens pages that must bring no error of a script, of the policy or of another origin.

    Without WebGL unless it is asked for: to draw on the processor takes most of a test's time.
    """
    visits: list[tuple[Visit, tuple[str, ...]]] = []

    def visit(
        *,
        at: str = address,
        expected: tuple[str, ...] = (),
        webgl: bool = False,
        **options: Any,
    ) -> Visit:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(60_000)
        if not webgl:
            context.add_init_script(NO_WEBGL)
            expected = (*expected, "WebGL")
        opened = Visit(context, context.new_page(), at)
        visits.append((opened, expected))
        return opened

    yield visit
    for opened, expected in visits:
        opened.context.close()
        # The browser itself calls an answer of 4xx or 5xx an error.
        unexpected = [
            error for error in opened.errors if not any(words in error for words in expected)
        ]
        assert not unexpected
        ours = (opened.address, f"blob:{opened.address}", "data:")
        assert not [url for url in opened.requests if not url.startswith(ours)]


@pytest.fixture
def flat_model() -> dict[str, Any]:
    """What a model of flat pictures says of itself."""
    return {
        "model": {"name": "multi-mnist", "version": "1", "sha256": "0" * 64},
        "kind": "2d",
        "side": 50,
        "channels": 1,
        "greatest_count": 3,
        "code": 50,
    }
