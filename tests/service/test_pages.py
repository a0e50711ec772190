"""What the page is made of: its files, its policy, the pictures that lie beside a model."""

import dataclasses
import gzip
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from inference.images import Decoder
from inference.plain import PlainConfig, PlainPosterior
from renderer import Scene, SceneSpec
from service.app import create_app
from service.assets import STATIC, takes_gzip
from service.engine import Answer
from service.galleries import DRAWINGS, PHOTOS, Gallery, examples, figures
from service.settings import Settings
from service.steps import walk

PAGE = STATIC / "page"

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


def test_the_page_may_do_nothing_but_what_it_needs(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(
        part.strip().split(" ", 1)
        for part in page.headers["content-security-policy"].split(";")
        if " " in part.strip()
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in page.headers["content-security-policy"]
    # So nothing may stand in the page itself.
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", page.text)


def test_every_file_of_the_page_is_there_and_ours(client: httpx.Client) -> None:
    page = client.get("/").text
    found = set(re.findall(r'(?:src|href)="(static/[^"]+)"', page))
    assert {"static/page/main.js", "static/page/page.css"} <= found
    for file in PAGE.glob("*.js"):
        text = file.read_text()
        modules = re.findall(r'(?:from|import\()\s*"([^"]+)"', text)
        found |= {f"static/page/{name[2:]}" for name in modules if name.startswith("./")}
        assert all(name.startswith(("./", "../three.min.js")) for name in modules), file
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b", text), file
    for address in found:
        assert client.get(f"/{address}").status_code == 200, address
    ours = [*PAGE.glob("*.js"), *PAGE.glob("*.css"), *PAGE.glob("*.html")]
    for file in ours:
        others = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text()))
        assert others <= {"http://www.w3.org/2000/svg"}, file  # a name, not an address


def test_what_is_told_of_the_parts_of_others_is_true() -> None:
    notice = (STATIC / "NOTICE").read_text()
    (version,) = re.findall(r"npm package three 0\.(\d+)\.", notice)
    bundle = (STATIC / "three.min.js").read_text()
    assert f'"{version}"' in bundle or f"'{version}'" in bundle
    assert "MIT" in (STATIC / "three.min.js.LICENSE.txt").read_text()
    told = set(re.findall(r"\w+", notice[notice.index("export {") : notice.index('from "three/')]))
    used = {
        name
        for file in PAGE.glob("*.js")
        for part in re.findall(r'import \{([^}]*)\} from "\.\./three\.min\.js"', file.read_text())
        for name in re.findall(r"\w+", part)
    }
    assert used <= told | {"GLTFLoader"}


def test_files_come_compressed_to_who_takes_that(client: httpx.Client) -> None:
    address, file = "/static/three.min.js", STATIC / "three.min.js"
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert plain.content == file.read_bytes()
    assert "content-encoding" not in plain.headers
    with client.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(raw) == int(answer.headers["content-length"]) < 0.3 * len(plain.content)
    assert gzip.decompress(raw) == plain.content
    assert "Accept-Encoding" in answer.headers["vary"]
    for known in (plain, answer):
        again = client.get(address, headers={"If-None-Match": known.headers["etag"]})
        assert again.status_code == 304
        assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        *[("gzip, deflate, br", True), ("br;q=1, *;q=0.5", True), ("GZIP", True)],
        *[("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.0, br", False)],
    ],
)
def test_who_takes_gzip(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a_first-one.svg", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "deep.png").mkdir()
    return tmp_path


def test_a_gallery_shows_pictures_and_nothing_else(folder: Path) -> None:
    gallery = Gallery(folder, DRAWINGS)
    assert gallery.pictures() == {"a_first-one.svg": "a first one", "b.PNG": "b"}
    (folder / "captions.json").write_text(json.dumps({"b.PNG": "The second.", "none.png": "?"}))
    assert gallery.pictures()["b.PNG"] == "The second."
    assert gallery.find("b.PNG") == (folder / "b.PNG", "image/png")
    for name in ("notes.txt", "deep.png", "../b.PNG", "captions.json", ".hidden.png", ""):
        assert gallery.find(name) is None
    assert Gallery(folder, PHOTOS).find("a_first-one.svg") is None
    assert Gallery(None, PHOTOS).pictures() == Gallery(folder / "none", PHOTOS).pictures() == {}


@pytest.mark.parametrize("content", ["[1]", "{", "\udcff"])
def test_captions_that_cannot_be_read_are_none(folder: Path, content: str) -> None:
    (folder / "captions.json").write_bytes(content.encode(errors="surrogateescape"))
    assert Gallery(folder, DRAWINGS).pictures()["b.PNG"] == "b"


def test_where_pictures_lie(settings: Settings, folder: Path, tmp_path: Path) -> None:
    assert figures(settings).folder is None  # not the shipped model, and has none
    own = Settings(checkpoint=settings.checkpoint, figures=folder)
    assert figures(own).folder == folder
    beside = tmp_path / "model"
    (beside / "examples").mkdir(parents=True)
    assert examples(Settings(checkpoint=beside)).folder == beside / "examples"
    assert len(examples(Settings()).pictures()) >= 12
    assert len(figures(Settings()).pictures()) >= 6


def test_pictures_over_http(serve: Serve, settings: Settings, folder: Path) -> None:
    shown = settings.model_copy(update={"examples": folder, "figures": folder})
    with serve(create_app(shown)) as client:
        listed = client.get("/figures").json()["pictures"]
        assert [picture["name"] for picture in listed] == ["a_first-one.svg", "b.PNG"]
        assert [picture["name"] for picture in client.get("/examples").json()["pictures"]] == [
            "b.PNG"
        ]
        answer = client.get("/v1/figures/a_first-one.svg")
        assert answer.content == b"a_first-one.svg"
        assert answer.headers["content-type"] == "image/svg+xml"
        # Opened by itself, a drawing runs no script.
        assert "sandbox" in answer.headers["content-security-policy"]
        for path in ("/figures/notes.txt", "/figures/..%2Fb.PNG", "/examples/a_first-one.svg"):
            missing = client.get(path)
            assert missing.status_code == 404
            assert missing.headers["content-type"] == "application/problem+json"


def test_steps_tell_how_the_answer_came_about(client: httpx.Client, photo_bytes: bytes) -> None:
    png = {"Content-Type": "image/png"}
    without = client.post("/infer", content=photo_bytes, headers=png).json()
    assert without["steps"] == []
    told = client.post("/infer?steps=true", content=photo_bytes, headers=png).json()
    assert told["objects"] == without["objects"]
    steps = told["steps"]
    probabilities = told["count"]["probabilities"]
    assert len(steps) == len(probabilities) - 1
    # The counts' probabilities are those of the steps: there were n, and then no more.
    left = 1.0
    for n, step in enumerate(steps):
        assert probabilities[n] == pytest.approx(left * (1.0 - step["presence"]), abs=1e-5)
        left *= step["presence"]
        attention = step["attention"]
        assert attention["rows"] * attention["columns"] == len(attention["weights"])
        assert sum(attention["weights"]) == pytest.approx(1.0, abs=1e-3)
        assert attention["region"] == {"x": 0.0, "y": 0.0, "width": 256.0, "height": 256.0}
    refused = client.post("/infer?steps=true&format=bop", content=photo_bytes, headers=png)
    assert refused.status_code == 422
    assert "steps" in refused.json()["detail"]


def test_a_network_that_attends_to_no_place_has_no_steps(
    spec: SceneSpec, canned_answer: Answer
) -> None:
    network = PlainPosterior(spec, PlainConfig(height=64, width=64)).eval()
    checkpoint = dataclasses.replace(canned_answer.checkpoint, posterior=network)
    assert walk(dataclasses.replace(canned_answer, checkpoint=checkpoint)) is None


def test_previews_are_half_as_large(client: httpx.Client, scene: Scene) -> None:
    described = {
        "camera": {"azimuth": {"value": float(scene.azimuth[0])}},
        "objects": [],
    }
    sizes = []
    for path in ("/render", "/render?preview=true"):
        picture = client.post(path, json=described)
        assert picture.headers["content-type"] == "image/png"
        decoded = Decoder(64, 64).decode(picture.content)
        sizes.append((decoded.width, decoded.height))
    (width, height), half = sizes
    assert half == (width // 2, height // 2)
