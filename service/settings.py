"""What an operator can set, by environment variables `AIRSCENE_…`; the command line wins."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from renderer.cpus import available_cpus

SHIPPED = Path("checkpoints") / "tabletop"
REPOSITORY = Path(__file__).resolve().parents[1]


def default_checkpoint() -> Path:
    """The shipped checkpoint: under the working directory, else beside the source tree."""
    beside = REPOSITORY / SHIPPED
    return beside if not SHIPPED.is_dir() and beside.is_dir() else SHIPPED


def default_threads() -> int:
    """One processor fewer than there are, at least 1 and at most 4.

    The network is small, and its threads wait for each other many times an inference: one that
    has to share its processor (with the HTTP server, a decoder, another program) makes all wait.
    On two busy processors two threads took 30 times as long as one.
    """
    return min(4, max(1, available_cpus() - 1))


class Settings(BaseSettings):
    """Settings of the server and of one-off inference."""

    model_config = SettingsConfigDict(env_prefix="AIRSCENE_", frozen=True, extra="forbid")

    checkpoint: Path = Field(default_factory=default_checkpoint)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)  # 0: any free one
    max_bytes: int = Field(default=10 * 2**20, ge=1)  # of one image file
    # At this limit a picture takes up to 600 MB while it is decoded (16 bytes a pixel, WebP),
    # and `decoders` of them are decoded at once.
    max_pixels: int = Field(default=40_000_000, ge=1)
    threads: int = Field(default_factory=default_threads, ge=1)  # of torch
    decoders: int = Field(default_factory=default_threads, ge=1)  # pictures decoded at once
    # Requests that may wait for the engine; one more is refused at once, with a 503.
    queue_size: int = Field(default=64, ge=1)
    batch_size: int = Field(default=16, ge=1)  # pictures inferred at once, at most
    batch_wait: float = Field(default=0.0, ge=0.0, le=1.0)  # s, for a batch to fill
    # s, in which a request's body must have come, and then again its answer be ready.
    max_seconds: float = Field(default=30.0, gt=0.0)
    max_samples: int = Field(default=64, ge=0)  # posterior samples that one request may ask for
    render_height: int = Field(default=480, ge=16, le=2048)  # px, of the pictures of POST /render
    max_cameras: int = Field(default=32, ge=1)  # that have a scene at once
    camera_expiry: float = Field(default=3600.0, gt=0.0)  # s without a frame; then it is forgotten
    max_wait: float = Field(default=30.0, ge=0.0)  # s, of a long poll
    max_waiting: int = Field(default=256, ge=1)  # long polls and event streams at once
    # Where replicas share their cameras; they are kept in memory without it. May hold a password.
    redis_url: SecretStr | None = None


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
        key = str(first["loc"][0])
        name = f"--{key}" if key in given else f"AIRSCENE_{key.upper()}"
        raise SettingsError(f"{name}={first['input']}: {first['msg']}") from None
