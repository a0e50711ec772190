"""Finding a scene, and the photo to compare it with, in a request."""

from __future__ import annotations

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from service.bodies import WRAPPING, in_time, media_type, read_body, read_form
from service.problems import INVALID, MALFORMED, MEDIA, TOO_LARGE, Problem
from service.schemas import SceneDescription
from service.settings import Settings
from service.uploads import FORM, JSON, only_image

HOW = (
    "Send the scene as JSON (an answer of /infer will do), or as the multipart field `scene` "
    "beside a photo in the field `image` (curl -F scene=@answer.json -F image=@photo.jpg)."
)


async def read_scene(request: Request, settings: Settings) -> tuple[SceneDescription, bytes | None]:
    """The described scene, and the image file beside it, when there is one.

    Raises:
        Problem: there is no scene, or the body is too large, too slow or cannot be read.
    """
    media = media_type(request)
    async with in_time(settings.max_seconds):
        if media == JSON:
            return _parse(await read_body(request, WRAPPING, _too_large(WRAPPING))), None
        if media != FORM:
            raise Problem(MEDIA, f"A body of type {media[:100] or 'none'} is not taken. {HOW}")
        limit = settings.max_bytes + 2 * WRAPPING
        async with read_form(request, limit, _too_large(limit), files=8) as form:
            scene = await _scene_field(form)
            image = await only_image(form).read() if "image" in form else None
            return _parse(scene), image


def _too_large(limit: int) -> Problem:
    return Problem(
        TOO_LARGE,
        f"The body has more than {limit} bytes; leave out of the scene what is not needed, and "
        "send the image as JPEG, or smaller.",
    )


async def _scene_field(form: FormData) -> bytes:
    fields = form.getlist("scene")
    if len(fields) != 1:
        raise Problem(INVALID, f"The form has {len(fields)} fields `scene`, not one. {HOW}")
    (field,) = fields
    return await field.read(WRAPPING + 1) if isinstance(field, UploadFile) else field.encode()


def _parse(content: bytes) -> SceneDescription:
    try:
        return SceneDescription.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise Problem(MALFORMED, f"The scene is not JSON: {first['msg']}. {HOW}") from None
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise Problem(INVALID, f"The scene: {said}. {HOW}") from None
