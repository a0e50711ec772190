"""Which store keeps the cameras: memory, or the Redis that the settings name."""

from __future__ import annotations

from service.cameras.memory_store import MemoryStore
from service.cameras.store import Store
from service.settings import Settings, SettingsError


def choose_store(settings: Settings) -> Store:
    """The store that the settings ask for.

    Raises:
        SettingsError: Redis cannot be used as the settings have it.
    """
    most, expiry = settings.max_cameras, settings.camera_expiry
    if settings.redis_url is None:
        return MemoryStore(most=most, expiry=expiry)
    try:
        from service.cameras.redis_store import RedisStore
    except ModuleNotFoundError:
        raise SettingsError(
            "AIRSCENE_REDIS_URL is set, but the package redis is missing; "
            "install airscene[redis], or leave the variable out"
        ) from None
    try:
        return RedisStore(settings.redis_url.get_secret_value(), most=most, expiry=expiry)
    except ValueError as error:  # the address itself may hold a password, and is not repeated
        raise SettingsError(f"AIRSCENE_REDIS_URL: {error}") from None
