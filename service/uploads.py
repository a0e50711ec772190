"""Finding the images' bytes in a request: multipart, raw or JSON."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from service.bodies import WRAPPING, in_time, media_type, read_body, read_form
from service.problems import INVALID, MALFORMED, MEDIA, NO_IMAGE, TOO_LARGE, Problem
from service.schemas import ImagesUpload, ImageUpload
from service.settings import Settings

FORM, JSON = "multipart/form-data", "application/json"
RAW = ("image/png", "image/jpeg", "image/jpg", "image/webp", "application/octet-stream")

HOW = (
    "Send it as the multipart field `image` (curl -F image=@photo.jpg), as a raw body with "
    "Content-Type: image/png, image/jpeg or image/webp, or as JSON {\"image\": base64}."
)  # fmt: skip
HOW_SEVERAL = (
    "Send them as multipart fields `images` (curl -F images=@a.jpg -F images=@b.jpg), or as "
    "JSON {\"images\": [base64, …]}."
)  # fmt: skip


async def read_image(request: Request, settings: Settings) -> bytes:
    """The bytes of the image file in a request.

    Raises:
        Problem: there is no image, it is too large, comes too slowly, or its wrapping cannot be
            read.
    """
    media, limit = media_type(request), settings.max_bytes
    too_large = _too_large(limit)
    async with in_time(settings.max_seconds):
        if media in RAW or not media:
            data = await read_body(request, limit, too_large)
        elif media == FORM:
            async with read_form(request, limit + WRAPPING, too_large, files=8) as form:
                data = await only_image(form).read()
        elif media == JSON:
            # Base64 has 4 characters for 3 bytes, and may be broken into lines.
            body = await read_body(request, limit * 3 // 2 + WRAPPING, too_large)
            data = _base64(_parse(ImageUpload, body, "image", HOW).image, "image")
        else:
            raise _not_taken(media, HOW)
    if not data:
        raise Problem(NO_IMAGE, f"The image is empty (0 bytes). {HOW}")
    if len(data) > limit:
        raise too_large
    return data


async def read_images(request: Request, settings: Settings) -> list[bytes]:
    """The bytes of the image files in a request, one or more; each may be too large or empty.

    Raises:
        Problem: there are none, too many, they are together too large, come too slowly, or their
            wrapping cannot be read.
    """
    media, limit, most = media_type(request), settings.max_batch_bytes, settings.max_images
    too_large = Problem(
        TOO_LARGE,
        f"All images of a request may have at most {limit} bytes together; send fewer at once, or "
        "scale them down.",
    )
    async with in_time(settings.max_seconds):
        if media == FORM:
            # One more than may be, so that it is this that is told.
            async with read_form(
                request, limit + most * WRAPPING, too_large, files=most + 1
            ) as form:
                parts = form.getlist("images")
                _check_number(len(parts), most)
                return [await _file(part, "images").read() for part in parts]
        if media == JSON:
            body = await read_body(request, limit * 3 // 2 + WRAPPING, too_large)
            texts = _parse(ImagesUpload, body, "images", HOW_SEVERAL).images
            _check_number(len(texts), most)
            return [_base64(text, f"images.{i}") for i, text in enumerate(texts)]
    raise _not_taken(media, HOW_SEVERAL)


def _not_taken(media: str, how: str) -> Problem:
    hint = ""
    if media == "application/x-www-form-urlencoded":
        hint = (
            " This is what curl's -d and --data-binary send: add "
            '-H "Content-Type: image/jpeg", or use -F.'
        )
    return Problem(MEDIA, f"A body of type {media[:100]} is not taken.{hint} {how}")


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        TOO_LARGE,
        f"An image file may have at most {max_bytes} bytes; scale the image down (see the input "
        "size in GET /model, more is not looked at) or send it as JPEG.",
    )


def _check_number(images: int, most: int) -> None:
    if images < 1:
        raise Problem(NO_IMAGE, f"The request has no images. {HOW_SEVERAL}")
    if images > most:
        raise Problem(INVALID, f"The request has {images} images; send at most {most} at once.")


def only_image(form: FormData) -> UploadFile:
    """The one file in a form's field `image`.

    Raises:
        Problem: there is none, more than one, or it is text.
    """
    images = form.getlist("image")
    if not images:
        fields = ", ".join(f"`{key[:50]}`" for key in form) or "none"
        raise Problem(NO_IMAGE, f"The form has no field `image` (its fields: {fields}). {HOW}")
    if len(images) > 1:
        raise Problem(
            INVALID,
            f"The form has {len(images)} fields `image`; send one picture a request, or several "
            "to /infer/batch.",
        )
    return _file(images[0], "image")


def _file(part: UploadFile | str, field: str) -> UploadFile:
    if isinstance(part, str):
        raise Problem(
            INVALID,
            f"The form's field `{field}` is text, not a file; with curl write an @ before the "
            f"file's name: -F {field}=@photo.jpg",
        )
    return part


Upload = TypeVar("Upload", ImageUpload, ImagesUpload)


def _parse(model: type[Upload], body: bytes, key: str, how: str) -> Upload:
    """The object in a JSON body."""
    if not body:
        raise Problem(NO_IMAGE, f"The body is empty. {how}")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _json_problem(error, key, how) from None


def _json_problem(error: ValidationError, key: str, how: str) -> Problem:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return Problem(
            MALFORMED, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        )
    if first["type"] == "missing":
        return Problem(NO_IMAGE, f"The JSON has no key `{key}`. {how}")
    if first["type"] == "extra_forbidden":
        return Problem(
            INVALID, f"The JSON has an unknown key `{where[:50]}`; the only one is `{key}`."
        )
    return Problem(INVALID, f"{where + ': ' if where else ''}{first['msg']}. {how}")


def _base64(text: str, key: str) -> bytes:
    """The bytes in the value of a key."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Problem(INVALID, f"{key}: a data: URL must be `data:image/…;base64,…`.")
    elif re.match(r"(https?|file)://", text):
        raise Problem(
            INVALID, f"{key}: is an address; the server fetches nothing. Send the file in base64."
        )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(INVALID, f"{key}: is not base64 ({error}).") from None
