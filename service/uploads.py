"""Finding the image's bytes in a request: multipart, raw or JSON, never more than allowed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.problems import INVALID, MALFORMED, MEDIA, NO_IMAGE, SLOW, TOO_LARGE, Problem
from service.schemas import ImageUpload
from service.settings import Settings

RAW = ("image/png", "image/jpeg", "image/jpg", "image/webp", "application/octet-stream")

# What a form's or a JSON body's wrapping may add to the image.
WRAPPING = 64 * 1024

# What is still taken of a body that is too large, and thrown away, so that the client is done
# sending and reads our answer. Cutting it off at once would look like a broken network.
DRAIN_BYTES, DRAIN_SECONDS = 64 * 2**20, 2.0

HOW = (
    "Send it as the multipart field `image` (curl -F image=@photo.jpg), as a raw body with "
    "Content-Type: image/png, image/jpeg or image/webp, or as JSON {\"image\": base64}."
)  # fmt: skip


async def read_image(request: Request, settings: Settings) -> bytes:
    """The bytes of the image file in a request.

    Args:
        request: to `POST /infer`.
        settings: with the limits.

    Raises:
        Problem: there is no image, it is too large, comes too slowly, or its wrapping cannot be
            read.
    """
    async with in_time(settings):
        return await _read_image(request, settings.max_bytes)


@asynccontextmanager
async def in_time(settings: Settings) -> AsyncIterator[None]:
    """Ends the reading of a body that comes too slowly with a Problem."""
    try:
        async with asyncio.timeout(settings.max_seconds):
            yield
    except TimeoutError:
        raise Problem(
            SLOW,
            f"The body had not come after {settings.max_seconds:g} seconds; send a smaller image, "
            "or look at the network.",
            {"Connection": "close"},
        ) from None


async def _read_image(request: Request, max_bytes: int) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(
            MEDIA, f"A body with Content-Encoding {encoding} is not taken; send it uncompressed."
        )
    given = request.headers.get("content-type", "")
    media = given.partition(";")[0].strip().lower()
    if media in RAW or not media:
        data = await read_body(request, max_bytes)
    elif media == "multipart/form-data":
        data = await _from_form(request, max_bytes)
    elif media == "application/json":
        # Base64 has 4 characters for 3 bytes, and may be broken into lines.
        data = _from_json(await read_body(request, max_bytes * 3 // 2 + WRAPPING, image=max_bytes))
    else:
        hint = ""
        if media == "application/x-www-form-urlencoded":
            hint = (
                " This is what curl's -d and --data-binary send: add "
                '-H "Content-Type: image/jpeg", or use -F.'
            )
        raise Problem(MEDIA, f"A body of type {media[:100]} is not taken.{hint} {HOW}")
    if not data:
        raise Problem(NO_IMAGE, f"The image is empty (0 bytes). {HOW}")
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


async def read_body(request: Request, limit: int, *, image: int | None = None) -> bytes:
    """The whole body, of at most `limit` bytes.

    Raises:
        Problem: it is larger; the message names `image` instead of `limit`, when given.
    """
    async with aclosing(_chunks(request, limit, image or limit)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def _chunks(request: Request, limit: int, image: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks; ends as soon as they, or their announcement, exceed `limit` bytes."""
    announced = request.headers.get("content-length", "")
    too_large = announced.isdecimal() and int(announced) > limit
    # A client that waits for our consent, as curl does, has sent nothing yet and gets none.
    if too_large and request.headers.get("expect", "").lower() == "100-continue":
        raise _too_large(image)
    received = 0
    async with aclosing(request.stream()) as stream:
        while not too_large:
            chunk = await anext(stream, None)
            if chunk is None:
                return
            received += len(chunk)
            too_large = received > limit
            if not too_large:
                yield chunk
        await _drain(stream)
    raise _too_large(image)


async def _drain(stream: AsyncIterator[bytes]) -> None:
    received = 0
    with anyio.move_on_after(DRAIN_SECONDS):
        async for chunk in stream:
            received += len(chunk)
            if received > DRAIN_BYTES:
                break


class _FormParser(MultiPartParser):
    """Starlette's parser, which also knows whether the form came to its end.

    Args:
        request: with the form.
        chunks: of its body.
        limit: of the body, bytes; it stays in memory, and no temporary folder is needed.
    """

    def __init__(self, request: Request, chunks: AsyncGenerator[bytes, None], limit: int) -> None:
        super().__init__(request.headers, chunks, max_files=8, max_fields=8, max_part_size=WRAPPING)
        self.spool_max_size = limit
        self.complete = False

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.complete = True

    def close(self) -> None:
        """Closes every file, those too that were begun and never ended."""
        for file in self._files_to_close_on_error:
            file.close()


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        TOO_LARGE,
        f"An image file may have at most {max_bytes} bytes; scale the image down (see the input "
        "size in GET /model, more is not looked at) or send it as JPEG.",
    )


@asynccontextmanager
async def open_form(request: Request, max_bytes: int) -> AsyncIterator[FormData]:
    """A multipart form, whose files are closed in the end.

    Raises:
        Problem: it is broken, or larger than one image may be.
    """
    limit = max_bytes + WRAPPING
    async with aclosing(_chunks(request, limit, max_bytes)) as chunks:
        parser = _FormParser(request, chunks, limit)
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


async def _from_form(request: Request, max_bytes: int) -> bytes:
    """The file in the field `image` of a multipart form."""
    async with open_form(request, max_bytes) as form:
        return await only_image(form).read()


def only_image(form: FormData) -> UploadFile:
    """The one file in the field `image`.

    Raises:
        Problem: there is none, or more than one.
    """
    images = form.getlist("image")
    if not images:
        fields = ", ".join(f"`{key[:50]}`" for key in form) or "none"
        raise Problem(NO_IMAGE, f"The form has no field `image` (its fields: {fields}). {HOW}")
    if len(images) > 1:
        raise Problem(
            INVALID, f"The form has {len(images)} fields `image`; send one picture a request."
        )
    if not isinstance(images[0], UploadFile):
        raise Problem(
            INVALID,
            "The form's field `image` is text, not a file; with curl write an @ before the "
            "file's name: -F image=@photo.jpg",
        )
    return images[0]


def _from_json(body: bytes) -> bytes:
    """The image in `{"image": base64}`."""
    if not body:
        raise Problem(NO_IMAGE, f"The body is empty. {HOW}")
    try:
        text = ImageUpload.model_validate_json(body).image
    except ValidationError as error:
        raise _json_problem(error) from None
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Problem(INVALID, "image: a data: URL must be `data:image/…;base64,…`.")
    elif re.match(r"(https?|file)://", text):
        raise Problem(
            INVALID, "image: is an address; the server fetches nothing. Send the file in base64."
        )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(INVALID, f"image: is not base64 ({error}).") from None


def _json_problem(error: ValidationError) -> Problem:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return Problem(
            MALFORMED, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        )
    if first["type"] == "missing":
        return Problem(NO_IMAGE, f"The JSON has no key `image`. {HOW}")
    if first["type"] == "extra_forbidden":
        return Problem(
            INVALID, f"The JSON has an unknown key `{where[:50]}`; the only one is `image`."
        )
    return Problem(INVALID, f"{where + ': ' if where else ''}{first['msg']}. {HOW}")
