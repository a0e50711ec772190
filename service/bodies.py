"""Reading a request's body: never more than allowed, never for longer, and never half of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.problems import MALFORMED, MEDIA, SLOW, Problem

# What a form's or a JSON body's wrapping may add to each image.
WRAPPING = 64 * 1024

# What is still taken of a body that is too large, and thrown away, so that the client is done
# sending and reads our answer. Cutting it off at once would look like a broken network.
DRAIN_BYTES, DRAIN_SECONDS = 64 * 2**20, 2.0


def media_type(request: Request) -> str:
    """The body's type, without its parameters; empty when the request does not say.

    Raises:
        Problem: the body is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(
            MEDIA,
            f"A body with Content-Encoding {encoding[:100]} is not taken; send it uncompressed.",
        )
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Ends reading a body that comes too slowly, with a Problem."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem(
            SLOW,
            f"The body had not come after {seconds:g} seconds; send a smaller image, or look at "
            "the network.",
            # The rest of it may still come, and is no request.
            {"Connection": "close"},
        ) from None


async def read_body(request: Request, limit: int, too_large: Problem) -> bytes:
    """The whole body.

    Args:
        request: not read yet.
        limit: bytes.
        too_large: raised when there are more.
    """
    async with aclosing(_chunks(request, limit, too_large)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@asynccontextmanager
async def read_form(
    request: Request, limit: int, too_large: Problem, *, files: int
) -> AsyncIterator[FormData]:
    """A multipart form; its files are closed behind it.

    Args:
        request: not read yet.
        limit: of the body, bytes; it stays in memory, and no temporary folder is needed.
        too_large: raised when there are more.
        files: most files and, apart from them, fields.

    Raises:
        Problem: the form is broken, or is not there as a whole.
    """
    async with aclosing(_chunks(request, limit, too_large)) as chunks:
        parser = _FormParser(
            request.headers, chunks, max_files=files, max_fields=files, max_part_size=WRAPPING
        )
        parser.spool_max_size = limit
        try:
            form = await parser.parse()
            if not parser.complete:
                raise Problem(
                    MALFORMED, "The multipart body ends before its last boundary; send it again."
                )
            yield form
        except MultiPartException as error:
            raise Problem(MALFORMED, f"The multipart body is broken: {error.message}") from None
        finally:
            parser.close()


async def _chunks(request: Request, limit: int, too_large: Problem) -> AsyncGenerator[bytes, None]:
    """The body's chunks; ends as soon as they, or their announcement, exceed `limit` bytes."""
    announced = request.headers.get("content-length", "")
    exceeds = announced.isdecimal() and int(announced) > limit
    # A client that waits for our consent, as curl does, has sent nothing yet and gets none.
    if exceeds and request.headers.get("expect", "").lower() == "100-continue":
        raise too_large
    received = 0
    async with aclosing(request.stream()) as stream:
        while not exceeds:
            chunk = await anext(stream, None)
            if chunk is None:
                return
            received += len(chunk)
            exceeds = received > limit
            if not exceeds:
                yield chunk
        await _drain(stream)
    raise too_large


async def _drain(stream: AsyncIterator[bytes]) -> None:
    received = 0
    with anyio.move_on_after(DRAIN_SECONDS):
        async for chunk in stream:
            received += len(chunk)
            if received > DRAIN_BYTES:
                break


class _FormParser(MultiPartParser):
    """Starlette's parser, which also knows whether the form came to its end."""

    complete = False

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.complete = True

    def close(self) -> None:
        """Closes every file, those too that were begun and never ended."""
        for file in self._files_to_close_on_error:
            file.close()
