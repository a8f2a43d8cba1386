from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from proglog_trio.dns.host_lookups import (
    AGAIN_SECONDS,
    MAX_ADDRESSES,
    MAX_HOSTS,
    RETRY_SECONDS,
    HostLookups,
    SystemLookup,
)
from proglog_trio.dns.listing import IpAddress
from proglog_trio.internal_errors import InternalErrors, Where


@define(eq=False)
class NameServer:
    """Answers what it is told to, and notes when it was asked."""

    answers: dict[str, Sequence[str]] = field(factory=dict)
    asked: list[tuple[float, str]] = field(factory=list)
    changes: int = 0
    error: Exception | None = None

    async def look_up(self, host: str) -> Sequence[IpAddress]:
        self.asked.append((trio.current_time(), host))
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return [ip_address(each) for each in self.answers.get(host, ())]

    def changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def lookups(server: NameServer) -> AsyncIterator[HostLookups]:
    async with trio.open_nursery() as nursery:
        running = HostLookups(InternalErrors(), server.changed, server.look_up)
        await nursery.start(running.run)
        yield running
        nursery.cancel_scope.cancel()


def found(running: HostLookups) -> dict[str, list[str]]:
    return {host: [str(each) for each in addresses] for host, addresses in running.found.items()}


async def test_a_host_is_looked_up_at_once_and_again_for_as_long_as_it_is_wanted(autojump_clock: MockClock) -> None:
    server = NameServer({"a": ["10.0.0.1"]})
    async with lookups(server) as running:
        begun = trio.current_time()
        running.want({"a"})
        await trio.sleep(1)
        assert found(running) == {"a": ["10.0.0.1"]}
        assert server.changes == 1
        server.answers["a"] = ["10.0.0.2", "2001:db8::1"]
        await trio.sleep(AGAIN_SECONDS)
        assert found(running) == {"a": ["10.0.0.2", "2001:db8::1"]}
        await trio.sleep(AGAIN_SECONDS)
        assert server.changes == 2
        running.want(set())
        await trio.sleep(10 * AGAIN_SECONDS)
        assert found(running) == {}
        assert [moment - begun for moment, _ in server.asked] == [0, AGAIN_SECONDS, 2 * AGAIN_SECONDS]


async def test_what_was_found_stays_while_nothing_else_is(autojump_clock: MockClock) -> None:
    server = NameServer({"a": ["10.0.0.1"]})
    async with lookups(server) as running:
        running.want({"a"})
        await trio.sleep(1)
        server.answers.clear()
        begun = trio.current_time()
        await trio.sleep(AGAIN_SECONDS + 3 * RETRY_SECONDS)
        assert found(running) == {"a": ["10.0.0.1"]}
        assert len([moment for moment, _ in server.asked if moment > begun]) == 4


async def test_a_host_that_is_not_found_is_tried_again_soon(autojump_clock: MockClock) -> None:
    server = NameServer()
    async with lookups(server) as running:
        running.want({"a"})
        await trio.sleep(RETRY_SECONDS / 2)
        assert found(running) == {}
        server.answers["a"] = ["10.0.0.1"]
        await trio.sleep(RETRY_SECONDS)
        assert found(running) == {"a": ["10.0.0.1"]}


async def test_an_error_is_that_of_its_host_alone(
    autojump_clock: MockClock, internal_errors: list[tuple[Where, Exception]]
) -> None:
    server = NameServer(error=RuntimeError("unforeseen"))
    async with lookups(server) as running:
        running.want({"a"})
        await trio.sleep(1)
        server.error = None
        server.answers.update(a=["10.0.0.1"], b=["10.0.0.2"])
        running.want({"a", "b"})
        await trio.sleep(RETRY_SECONDS + 5)
        assert found(running) == {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}
    assert {where for where, _ in internal_errors} == {Where.DNS_LOOKUP}


async def test_hosts_and_their_addresses_have_bounds(autojump_clock: MockClock) -> None:
    hosts = {f"h{number:05}" for number in range(MAX_HOSTS + 10)}
    server = NameServer({host: [f"10.0.0.{number}" for number in range(50)] for host in hosts})
    async with lookups(server) as running:
        running.want(hosts)
        await trio.sleep(1)
        assert set(found(running)) == set(sorted(hosts)[:MAX_HOSTS])
        assert {len(each) for each in found(running).values()} == {MAX_ADDRESSES}


async def test_nothing_is_wanted_of_what_does_not_run() -> None:
    with pytest.raises(RuntimeError, match="while run runs"):
        HostLookups(InternalErrors(), lambda: None).want({"a"})


async def test_the_system_is_asked_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = SystemLookup().look_up
    assert ip_address("127.0.0.1") in await look_up("localhost")
    assert await look_up("there-is-none.invalid") == ()

    def answer(*_arguments: object, **_named: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        addresses = ("fe80::1%2", "2001:db8::1", "10.0.0.2", "10.0.0.1", "10.0.0.1")
        return [(0, 0, 0, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert [str(each) for each in await look_up("kölln")] == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
    assert await look_up("x" * 70) == await look_up("a")
    await wait_all_tasks_blocked()
