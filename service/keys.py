"""API keys: who may ask, and who may also reload the model."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers

from service.settings import Settings, SettingsError

# Shorter keys can be guessed. `openssl rand -hex 16` makes one of 32.
SHORTEST = 16


@dataclass(frozen=True)
class Client:
    """Somebody whose key is known.

    Args:
        name: for logs and rate limits; never the key.
        admin: whether it may use `/admin/`.
    """

    name: str
    admin: bool = False


class Keys:
    """The known keys. Only their hashes are kept.

    Args:
        clients: by the SHA-256 of their keys.
    """

    def __init__(self, clients: Mapping[bytes, Client]) -> None:
        self._clients = dict(clients)

    def __bool__(self) -> bool:
        return bool(self._clients)

    @property
    def admins(self) -> bool:
        """Whether any key is an admin's."""
        return any(client.admin for client in self._clients.values())

    def find(self, headers: Headers) -> Client | None:
        """Whose key a request brings, as `Authorization: Bearer …` or `X-API-Key: …`."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(key)
        found = None
        # Over all of them, so that the time says nothing of which one came near.
        for known, client in self._clients.items():
            if hmac.compare_digest(known, digest):
                found = client
        return found


def load_keys(settings: Settings) -> Keys:
    """The keys that the settings give, in files and in themselves.

    Raises:
        SettingsError: a file cannot be read, or a key in it cannot be used.
    """
    clients: dict[bytes, Client] = {}
    for kind, admin in (("api_key", False), ("admin_key", True)):
        file: Path | None = getattr(settings, f"{kind}_file")
        variable = f"AIRSCENE_{kind.upper()}"
        sources: list[tuple[str, Iterable[str]]] = [
            (f"{variable}S", getattr(settings, f"{kind}s").get_secret_value().split(","))
        ]
        if file is not None:
            sources.append((str(file), _lines(file, f"{variable}_FILE")))
        found = {
            digest: client
            for where, lines in sources
            for digest, client in _clients(where, lines, admin).items()
        }
        if file is not None and not found:
            # Whoever names an empty file meant to close the door, not to leave it open.
            raise SettingsError(f"{file}: has no key; write one a line, or unset {variable}_FILE")
        clients |= found
    return Keys(clients)


def _lines(file: Path, variable: str) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{variable}={file}: cannot be read ({reason})") from None


def _clients(where: str, lines: Iterable[str], admin: bool) -> dict[bytes, Client]:
    clients = {}
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, colon, key = entry.partition(":")
        if not colon:
            name, key = f"{'admin' if admin else 'key'}-{number}", entry
        name, key = name.strip(), key.strip()
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            # The key itself must not reach a log.
            raise SettingsError(
                f"{where}: entry {number} is shorter than {SHORTEST} characters, or has others "
                "than printable ASCII; make one with `openssl rand -hex 16`"
            )
        clients[_digest(key)] = Client(name, admin)
    return clients


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
