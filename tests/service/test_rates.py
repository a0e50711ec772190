import pytest

from service import rates
from service.rates import Buckets, network_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(rate=2.0, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0  # another's bucket
    clock.now += 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(0.5)
    # In the long run no more than the rate, however often it asks.
    taken = 0
    for _ in range(1000):
        clock.now += 0.01
        taken += buckets.take("a") == 0
    assert taken == pytest.approx(20, abs=1)
    clock.now += 3600
    assert [buckets.take("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_CLIENTS", 3)
    buckets = Buckets(rate=1.0, burst=1, clock=Clock())
    for client in "abc":
        assert buckets.take(client) == 0
    assert buckets.take("a") > 0  # known, and now the one seen last
    assert buckets.take("d") == 0  # b is forgotten for it
    assert [buckets.take(client) > 0 for client in "acd"] == [True, True, True]
    assert buckets.take("b") == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_who_an_address_stands_for(address: str, network: str) -> None:
    assert network_of(address) == network
