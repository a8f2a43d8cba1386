"""Looking up start addresses."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from proglog_trio.address import Address
from proglog_trio.internal_errors import Where
from proglog_trio.membership.addresses.lookup import MAX_LOOKUPS, Lookups, endpoints_of, problems_of
from proglog_trio.membership.swim.node import Endpoint
from tests.membership.test_membership import Names


class Slow(Names):
    """A name server that takes its time, and counts."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.asked = self.at_once = self.max_at_once = 0

    async def getaddrinfo(self, host: bytes | None, port: Any, *_arguments: Any, **_more: Any) -> list[Any]:
        self.asked += 1
        self.at_once += 1
        self.max_at_once = max(self.max_at_once, self.at_once)
        await trio.sleep(self.seconds)
        self.at_once -= 1
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))] * 2


ONE, TWO = Address("one", 1), Address("two", 2)


async def test_names_are_looked_up_at_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    slow = Slow(3)
    trio.socket.set_custom_hostname_resolver(slow)
    began = trio.current_time()
    found = await Lookups(nursery).look_up([ONE, TWO, ONE])
    assert trio.current_time() - began == 3
    assert endpoints_of(found) == [Endpoint.of("10.0.0.1", 1), Endpoint.of("10.0.0.1", 2)]
    assert problems_of(found) == []
    assert slow.asked == 2


async def test_what_is_under_way_is_waited_for_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    slow = Slow(30)
    trio.socket.set_custom_hostname_resolver(slow)
    lookups = Lookups(nursery)
    for _ in range(2):
        assert problems_of(await lookups.look_up([ONE], 10)) == ["one:1: no name server answers"]
    assert len(endpoints_of(await lookups.look_up([ONE], 11))) == 1
    assert slow.asked == 1
    await lookups.look_up([ONE], 60)
    assert slow.asked == 2  # what is over is asked for anew


async def test_nothing_is_kept_of_what_is_over(nursery: trio.Nursery) -> None:
    trio.socket.set_custom_hostname_resolver(Slow(0))
    lookups = Lookups(nursery)
    for number in range(3):
        await lookups.look_up([Address(f"host-{number}", 1)])
    assert lookups._pending == {}
    assert "host-0" not in repr(lookups)


@pytest.mark.internal_errors
async def test_what_nobody_foresaw_is_a_problem_of_its_address_alone(nursery: trio.Nursery) -> None:
    class Broken(Slow):
        async def getaddrinfo(self, host: bytes | None, port: Any, *arguments: Any, **more: Any) -> list[Any]:
            if host == b"one":
                raise RuntimeError("can't start new thread")
            return await super().getaddrinfo(host, port, *arguments, **more)

    trio.socket.set_custom_hostname_resolver(Broken(0))
    for lookups in (Lookups(nursery), Lookups()):
        found = await lookups.look_up([ONE, TWO])
        assert endpoints_of(found) == [Endpoint.of("10.0.0.1", 2)]
        assert problems_of(found) == ["one:1: internal error"]
        assert lookups.errors.counts[Where.MEMBERSHIP_JOIN] == 1


async def test_so_many_at_a_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    slow = Slow(1)
    trio.socket.set_custom_hostname_resolver(slow)
    await Lookups(nursery).look_up([Address(f"host-{number}", 1) for number in range(3 * MAX_LOOKUPS)])
    assert slow.max_at_once == MAX_LOOKUPS


async def test_problems_are_named() -> None:
    names = [Address("no.such.name.invalid", 1), Address("x" * 70 + ".com", 2), Address("127.0.0.1", 3)]
    trio.socket.set_custom_hostname_resolver(Names())
    found = await Lookups().look_up(names)
    assert endpoints_of(found) == [Endpoint.of("127.0.0.1", 3)]
    first, second = problems_of(found)
    assert first == "no.such.name.invalid:1: Name or service not known"
    assert second.startswith("xxxx")
