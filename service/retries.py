"""When to send a request again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

# Refused for now, by the service or by a proxy before it.
AGAIN = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """Waits longer each time, up to a limit, and never as long as another client.

    Every request of the service may be sent twice without harm: inferring changes nothing, and of
    a camera's frames the latest counts.

    Args:
        attempts: at most, the first one included.
        first: s, of the first pause; each is twice the one before.
        longest: s, of any pause, also of one that the server asks for.
        jitter: a number in [0, 1): where in its upper half a pause lies.
    """

    attempts: int = 4
    first: float = 0.2
    longest: float = 10.0
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def pause(self, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next attempt; None when there shall be none.

        Args:
            attempt: that just failed, from 1.
            outcome: the answer, or why there was none.
        """
        if isinstance(outcome, httpx.Response) and outcome.status_code not in AGAIN:
            return None
        if attempt >= self.attempts:
            return None
        upper = min(self.first * 2.0 ** (attempt - 1), self.longest)
        own = upper * (0.5 + 0.5 * self.jitter())
        if isinstance(outcome, httpx.TransportError):
            return own
        asked = retry_after(outcome)
        if asked is None:
            return own
        # A robot would rather be told now than wait for minutes.
        return None if asked > self.longest else max(asked, own)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that a response asks to wait, by number or by date (RFC 9110, 10.2.3)."""
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        moment = parsedate_to_datetime(given)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
