"""What an operator can set, by environment variables `AIRSCENE_…`; the command line wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from renderer.cpus import available_cpus

SHIPPED = Path("checkpoints") / "tabletop"
REPOSITORY = Path(__file__).resolve().parents[1]


def default_checkpoint() -> Path:
    """The shipped checkpoint: under the working directory, else beside the source tree."""
    return shipped(SHIPPED)


def shipped(folder: str | Path) -> Path:
    """A folder that we ship: under the working directory, else beside the source tree."""
    here, beside = Path(folder), REPOSITORY / folder
    return beside if not here.is_dir() and beside.is_dir() else here


def default_engines() -> int:
    """One for each processor, at most 4: an engine takes some 300 MB."""
    return min(4, available_cpus())


def default_decoders() -> int:
    """One processor fewer than there are, at least 1 and at most 4."""
    return min(4, max(1, available_cpus() - 1))


def default_threads(settings: dict[str, Any]) -> int:
    """The engines' share of one processor fewer than there are, at least 1 and at most 4.

    The network is small, and its threads wait for each other many times an inference: one that
    has to share its processor (with the HTTP server, a decoder, another program) makes all wait.
    On two busy processors two threads took 30 times as long as one.

    Args:
        settings: that stand before.
    """
    return min(4, max(1, (available_cpus() - 1) // settings.get("engines", 1)))


class Settings(BaseSettings):
    """Settings of the server and of one-off inference."""

    model_config = SettingsConfigDict(env_prefix="AIRSCENE_", frozen=True, extra="forbid")

    checkpoint: Path = Field(default_factory=default_checkpoint)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)  # 0: any free one

    # Limits of a request.
    max_bytes: int = Field(default=10 * 2**20, ge=1)  # of one image file
    # At this limit a picture takes up to 600 MB while it is decoded (16 bytes a pixel, WebP),
    # and `decoders` of them are decoded at once.
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_images: int = Field(default=16, ge=1)  # of one POST /infer/batch
    max_batch_bytes: int = Field(default=40 * 2**20, ge=1)  # of its body
    # s, in which a request's body must have come, and then again its answer be ready.
    max_seconds: float = Field(default=30.0, gt=0.0)

    # Limits of all requests together; one more is refused at once, with a 503.
    max_uploads: int = Field(default=128, ge=1)  # that are being received or answered
    queue_size: int = Field(default=64, ge=1)  # pictures that wait for the engine
    # s, for which they may have to wait: a robot has no use for an answer about the past.
    queue_seconds: float = Field(default=0.35, gt=0.0)

    # Of what one request may ask for, and how long it may wait for it.
    max_samples: int = Field(default=64, ge=0)  # scenes drawn from the posterior
    max_refine: int = Field(default=20, ge=0)  # steps of render and compare
    # s, that refining one picture may take; the others wait as long for the engine.
    refine_seconds: float = Field(default=1.0, gt=0.0)
    render_height: int = Field(default=480, ge=16, le=2048)  # px, of the pictures of POST /render
    max_wait: float = Field(default=30.0, ge=0.0)  # s, of a long poll
    max_waiting: int = Field(default=256, ge=1)  # long polls and event streams at once

    # Pictures for the page: photos to try, and drawings about the training. When not given, the
    # folders `examples` and `figures` in the checkpoint's.
    examples: Path | None = None
    figures: Path | None = None

    # The cameras whose latest scene is kept.
    max_cameras: int = Field(default=32, ge=1)
    camera_expiry: float = Field(default=3600.0, gt=0.0)  # s without a frame; then it is forgotten
    # The Redis in which replicas share them; in memory without it. May hold a password.
    redis_url: SecretStr | None = None

    # How often each client may ask: by its key, or by its address where there are no keys.
    rate: float = Field(default=0.0, ge=0.0)  # 1/s; 0: as often as it likes
    rate_burst: int = Field(default=20, ge=1)  # requests at once, after a pause

    # Keys, separated by commas or one a line of a file, each alone or as `name:key`. With none,
    # everybody may ask, and nobody may use /admin/.
    api_keys: SecretStr = SecretStr("")
    api_key_file: Path | None = None
    admin_keys: SecretStr = SecretStr("")
    admin_key_file: Path | None = None
    # Of web pages that may ask from a browser, such as https://robots.example; separated by
    # commas, * for all.
    cors_origins: str = ""

    # How the work is done.
    # That infer at the same time: each in a process of its own, or a single one in the server's.
    engines: int = Field(default_factory=default_engines, ge=1)
    threads: int = Field(default_factory=default_threads, ge=1)  # of torch, in each engine
    decoders: int = Field(default_factory=default_decoders, ge=1)  # pictures decoded at once
    batch_size: int = Field(default=16, ge=1)  # pictures inferred at once, at most
    batch_wait: float = Field(default=0.0, ge=0.0, le=1.0)  # s, for a batch to fill

    # How it ends. After SIGTERM, /readyz says no and new requests are still answered for
    # `drain_delay` s, until whoever sends them has noticed; what runs then has `drain_seconds`.
    drain_delay: float = Field(default=1.0, ge=0.0)
    drain_seconds: int = Field(default=8, ge=1)
    # After this long at one batch the engine counts as hung, and /readyz says so.
    stall_seconds: float = Field(default=60.0, gt=0.0)

    log_format: Literal["human", "json"] = "human"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otel: bool = False  # traces, sent as the variables OTEL_… say; needs airscene[otel]

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        if self.max_images > self.queue_size:
            raise ValueError(
                f"max_images={self.max_images} is more than queue_size={self.queue_size}: such a "
                "batch would never find room"
            )
        longest = min(self.max_seconds, self.stall_seconds)
        if self.refine_seconds >= longest:
            raise ValueError(
                f"refine_seconds={self.refine_seconds:g} must be below max_seconds and "
                f"stall_seconds, {longest:g}: an answer later than that reaches nobody"
            )
        return self


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and what is wrong."""


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment; overrides that are None leave the environment's value.

    Raises:
        SettingsError: which variable is wrong, and how.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several settings together
            raise SettingsError(str(first["ctx"]["error"])) from None
        key = str(first["loc"][0])
        name = f"--{key}" if key in given else f"AIRSCENE_{key.upper()}"
        raise SettingsError(f"{name}={first['input']}: {first['msg']}") from None
