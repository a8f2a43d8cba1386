"""Start addresses that come and go: joining does not end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from proglog_trio.address import Address
from proglog_trio.membership import joining
from proglog_trio.membership.addresses.lookup import LOOKUP_SECONDS
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.exchanges import Exchanges
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.swim.node import Endpoint
from tests.membership.running import EVENTUALLY_SECONDS, LAN, LOCAL, QUICK, start_ours_in
from tests.membership.test_membership import Names


async def test_a_seed_that_left_is_found_again() -> None:
    async with start_ours_in() as start:
        seed = await start("seed")
        others = [await start(name, join=[seed.address]) for name in ("b", "c")]
        await others[0].until_status("alive", "c", "seed")
        await seed.leave()
        await others[0].until_status("left", "seed")
        again = await start("seed", port=seed.address.port, join=[seed.address])
        await again.until_status("alive", "b", "c")
        for other in others:
            await other.until_status("alive", "seed")


async def test_a_start_address_that_was_down_is_joined_later() -> None:
    async with start_ours_in() as start:
        a, b = await start("a"), await start("b")
        await b.crash()
        c = await start("c", join=[a.address, b.address])
        await c.until_status("alive", "a")
        await start("b", port=b.address.port)
        await c.until_status("alive", "b")
        await a.until_status("alive", "b")


async def test_those_who_have_forgotten_each_other_meet_again() -> None:
    """As after a partition that lasted longer than the reconnect timeout."""
    async with start_ours_in() as start:
        forgetful = evolve(QUICK, reconnect_timeout=0.5, reap_interval=0.2)
        b = await start("b")
        a = await start("a", profile=forgetful, join=[b.address])
        await a.until_status("alive", "b")
        await b.crash()
        await a.until(lambda seen: set(seen) == {"a"})
        await start("b", port=b.address.port)
        await a.until_status("alive", "b")


async def test_a_name_is_looked_up_again_after_joining() -> None:
    async with start_ours_in() as start:
        names = Names(members=["127.0.0.2"])
        trio.socket.set_custom_hostname_resolver(names)
        a = await start("a", host="127.0.0.2")
        port = a.address.port
        b = await start("b", host="127.0.0.3", port=port, join=[Address("members", port)])
        await b.until_status("alive", "a")
        names.names = {"members": ["127.0.0.2", "127.0.0.4"]}
        await start("c", host="127.0.0.4", port=port)
        await b.until_status("alive", "c")


class SilentNameServer(Names):
    """Never says anything; counts who waits."""

    waiting = 0

    async def getaddrinfo(self, host: bytes | None, *_arguments: Any, **_more: Any) -> list[Any]:
        self.waiting += 1
        await trio.sleep_forever()
        raise AssertionError


async def test_a_silent_name_server_does_not_delay_a_start() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        silent = SilentNameServer()
        trio.socket.set_custom_hostname_resolver(silent)
        with trio.fail_after(LOOKUP_SECONDS - 1):
            b = await start("b", join=[Address("one", 1), Address("two", 2), a.address])
        # Who answers is joined at once all the same.
        assert set(b.members()) == {"a", "b"}
        assert silent.waiting == 2


async def test_start_addresses_that_drop_everything_do_not_delay_a_start(caplog: pytest.LogCaptureFixture) -> None:
    async with start_ours_in() as start, trio.open_nursery() as nursery:
        # What connects is taken in by the kernel, and never answered: 10 s each.
        dead = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = Address("127.0.0.1", dead[0].socket.getsockname()[1])
        addresses = [address, *(Address(f"127.0.0.1{number}", address.port) for number in range(4))]
        listeners = [await trio.open_tcp_listeners(address.port, host=each.host) for each in addresses[1:]]
        with trio.fail_after(LAN.stream_timeout - 1):
            alone = await start("alone", profile=LAN, join=addresses)
            a = await start("a", profile=LAN)
            b = await start("b", profile=LAN, join=[*addresses, a.address])
        assert set(alone.members()) == {"alone"}
        assert set(b.members()) == {"a", "b"}
        for (listener,) in [dead, *listeners]:
            await listener.aclose()
        nursery.cancel_scope.cancel()


async def test_dead_start_addresses_are_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "LONGEST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(joining, "FIRST_RETRY_SECONDS", 0.05)
    looks = counted(monkeypatch, "look")
    async with start_ours_in() as start:
        await start("a", join=[Address("127.0.0.1", 1)])
        await looks.until(5)
    warned = [each for each in caplog.records if "does not answer" in each.getMessage()]
    assert len(warned) == 1
    assert warned[0].levelno == logging.WARNING
    assert "127.0.0.1:1: " in warned[0].getMessage()


async def test_an_address_that_members_do_not_call_themselves_by_is_joined_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service's address, or one before a translation: it stands for a live member without being one's."""
    monkeypatch.setattr(joining, "LONGEST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(joining, "FIRST_RETRY_SECONDS", 0.05)
    config = GossipConfig(name="a", bind_host="0.0.0.0", advertise_host="127.0.0.1", profile=LOCAL)  # noqa: S104 - any
    service = await bind_membership(config, {})
    async with start_ours_in() as start, trio.open_nursery() as nursery:
        await nursery.start(service.run)
        b = await start("b", join=[Address("127.0.0.2", service.gossip.endpoint.port)])
        await b.until_status("alive", "a")
        looks = counted(monkeypatch, "look")
        exchanges = counted(monkeypatch, "exchange")
        await looks.until(5)
        assert exchanges.targets == []
        nursery.cancel_scope.cancel()


@define
class Calls:
    """Whom members have called."""

    targets: list[Endpoint] = field(factory=list)
    _more: trio.Event = field(factory=trio.Event)

    def add(self, target: Endpoint) -> None:
        self.targets.append(target)
        self._more.set()

    async def until(self, count: int) -> None:
        with trio.fail_after(EVENTUALLY_SECONDS):
            while len(self.targets) < count:
                await self._more.wait()
                self._more = trio.Event()


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> Calls:
    """Note whom members call with a method of their gossip in order to join, from now on."""
    calls = Calls()
    original = getattr(Exchanges, name)

    async def counting(self: Exchanges, target: Endpoint, **more: Any) -> Any:
        if name == "look" or more.get("join"):
            calls.add(target)
        return await original(self, target, **more)

    monkeypatch.setattr(Exchanges, name, counting)
    return calls
