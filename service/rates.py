"""How often each client may ask: a bucket of tokens that fills at a steady rate."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

# Clients whose buckets are kept. Whoever asks from ever new addresses must not fill the memory;
# the one that was silent for longest is forgotten, and starts again with a full bucket.
MOST_CLIENTS = 10_000


class Buckets:
    """A bucket a client; each request takes one token.

    Args:
        rate: tokens that flow into a bucket, 1/s.
        burst: tokens that a bucket holds.
        clock: s.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, client: str) -> float:
        """Takes a token; 0, or the seconds until there will be one if there is none."""
        now = self._clock()
        tokens, then = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + self._rate * (now - then))
        allowed = tokens >= 1.0
        self._buckets[client] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - tokens) / self._rate


def network_of(address: str) -> str:
    """The client that an address stands for: an IPv6 host has 2^64 of them and counts once."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))
    return address
