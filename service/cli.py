"""The command line: `python -m service serve` and `python -m service infer`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from inference.checkpoint import CheckpointError
from inference.checkpoint2d import Checkpoint2d, open_checkpoint
from inference.images import Decoder, ImageError
from service import engine_process
from service.answers import compose, now
from service.app import create_app
from service.engine import Engine, EngineError
from service.glimpse_answers import compose_glimpses
from service.glimpse_engine import GlimpseEngine
from service.lane import decoder_for
from service.server import Server
from service.settings import Settings, SettingsError, load_settings

MISUSE = 2  # exit code: something that the caller can mend

CheckpointFolder = Annotated[
    Path | None,
    tyro.conf.arg(
        help="Checkpoint folder. Default: $AIRSCENE_CHECKPOINT, or the shipped checkpoint.",
        metavar="DIR",
        help_behavior_hint="",
    ),
]


def serve(
    checkpoint: CheckpointFolder = None,
    host: Annotated[
        str | None,
        tyro.conf.arg(
            help="Address to listen on. Default: $AIRSCENE_HOST, or 127.0.0.1.",
            metavar="HOST",
            help_behavior_hint="",
        ),
    ] = None,
    port: Annotated[
        int | None,
        tyro.conf.arg(
            help="Port, 0 for any. Default: $AIRSCENE_PORT, or 8000.",
            metavar="PORT",
            help_behavior_hint="",
        ),
    ] = None,
) -> int:
    """Run the HTTP server: POST a photo to /infer, read /docs."""
    settings = load_settings(checkpoint=checkpoint, host=host, port=port)
    if settings.engines > 1:
        engine_process.prepare()
    loaded = open_checkpoint(settings.checkpoint)
    try:
        listener = _listen(settings)
    except OSError as error:
        return _complain(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); "
            "choose another --port or --host"
        )
    app = create_app(settings, loaded=loaded)
    server = Server(app, settings)
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{address}:{listener.getsockname()[1]}"
    print(
        f"airscene serves {loaded.name} {loaded.version} on {url} (try {url}/docs); Ctrl+C ends it",
        flush=True,
    )
    server.run(sockets=[listener])
    return 0


def infer(
    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(help="PNG, JPEG or WebP files.", metavar="IMAGE...", help_behavior_hint=""),
    ],
    checkpoint: CheckpointFolder = None,
    refine: Annotated[
        int,
        tyro.conf.arg(
            help="Steps of render and compare, at most; 5 are enough. Default: 0, the network's "
            "answer as it is. Takes up to $AIRSCENE_REFINE_SECONDS a picture, 1.",
            metavar="N",
            help_behavior_hint="",
        ),
    ] = 0,
) -> int:
    """Print what each picture shows: the JSON of POST /infer, one line each.

    `request_id` is the file's name as given. A file that cannot be used is named on standard error,
    the others are still answered, and the exit code is 2.
    """
    if not images:
        return _complain("no image; name at least one: python -m service infer photo.jpg")
    settings = load_settings(checkpoint=checkpoint)
    if not 0 <= refine <= settings.max_refine:
        return _complain(f"--refine {refine}: give a number from 0 to {settings.max_refine}")
    loaded = open_checkpoint(settings.checkpoint)
    engine: Engine | GlimpseEngine
    if isinstance(loaded, Checkpoint2d):
        if refine:
            return _complain(f"--refine: is for scenes; {settings.checkpoint} knows none")
        engine = GlimpseEngine(loaded, threads=settings.threads)
    else:
        engine = Engine(loaded, threads=settings.threads)
    decoder = decoder_for(loaded, settings)
    # The first inference is slow; without this, it would be the first picture's timing_ms.
    engine.warm_up()
    code = 0
    for path in images:
        try:
            print(_infer_file(engine, decoder, path, refine, settings), flush=True)
        except OSError as error:
            code = _complain(f"{path}: {error.strerror}; give the path of an image file")
        except (ImageError, EngineError) as error:
            code = _complain(f"{path}: {error}")
    engine.close()
    return code


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        return int(
            tyro.extras.subcommand_cli_from_dict(
                {"serve": serve, "infer": infer},
                prog="python -m service",
                description="Objects, poses and camera angle from one photo of a table.",
                args=args,
            )
        )
    except (CheckpointError, SettingsError) as error:
        return _complain(str(error))


def _infer_file(
    engine: Engine | GlimpseEngine, decoder: Decoder, path: Path, steps: int, settings: Settings
) -> str:
    """The response to one file, as one line of JSON."""
    stamp = now()
    picture = decoder.decode(path.read_bytes())
    if isinstance(engine, GlimpseEngine):
        seen = compose_glimpses(engine.infer(picture), request_id=str(path), stamp=stamp)
        return seen.model_dump_json()
    answer = engine.infer(picture)
    if steps:
        answer = engine.refine(answer, steps, settings.refine_seconds)
    response = compose(answer, request_id=str(path), stamp=stamp)
    return response.model_dump_json()


def _listen(settings: Settings) -> socket.socket:
    """A bound socket: before anything slow, so that a port in use is told at once."""
    family, *_, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server that is started again must not wait until old connections are forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return MISUSE
