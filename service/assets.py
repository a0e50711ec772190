"""The files of our pages, compressed once instead of at every request."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import anyio
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"

# What compresses well; pictures are compressed already.
TEXTS = (".css", ".html", ".js", ".json", ".svg", ".txt")


class Assets(StaticFiles):
    """A folder's files; browsers ask each time whether theirs is still the newest."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file at `path`, compressed for those who take that."""
        response = await super().get_response(path, scope)
        # Without this a browser guesses how long a file is good, and an upgrade is half a page.
        response.headers["Cache-Control"] = "no-cache"
        if not isinstance(response, FileResponse) or not str(response.path).endswith(TEXTS):
            return response
        response.headers["Vary"] = "Accept-Encoding"
        if not takes_gzip(Headers(scope=scope).get("accept-encoding", "")):
            return response
        file = Path(response.path)
        content = await anyio.to_thread.run_sync(_compressed, file, file.stat().st_mtime_ns)
        headers = dict(response.headers) | {
            "content-encoding": "gzip",
            "content-length": str(len(content)),
            # Weak: the same file, not the same bytes.
            "etag": f"W/{response.headers['etag']}",
        }
        del headers["accept-ranges"]
        return Response(content, headers=headers)


def compressed(response: Response, headers: Headers) -> Response:
    """An answer as bytes, compressed where the request's headers say that this is taken."""
    response.headers["Vary"] = "Accept-Encoding"
    if not takes_gzip(headers.get("accept-encoding", "")):
        return response
    content = _squeezed(bytes(response.body))
    changed = dict(response.headers) | {
        "content-encoding": "gzip",
        "content-length": str(len(content)),
    }
    if "etag" in changed:  # weak: the same thing, not the same bytes
        changed["etag"] = f"W/{changed['etag'].removeprefix('W/')}"
    return Response(content, response.status_code, changed)


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, or anything, and does not refuse it by `q=0`."""
    for item in accepted.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in ("gzip", "*"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


@lru_cache(maxsize=128)
def _compressed(file: Path, changed: int) -> bytes:
    """A file's gzip; `changed` tells its versions apart."""
    return gzip.compress(file.read_bytes(), 9, mtime=0)


ASSETS = Assets(directory=STATIC)


@lru_cache(maxsize=16)
def _squeezed(content: bytes) -> bytes:
    """Gzip of what is asked for again and again."""
    return gzip.compress(content, 9, mtime=0)
