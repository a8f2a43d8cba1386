"""Start addresses by SRV records, from a name server on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.address import Address, ServiceName, parse_start_address
from proglog_trio.membership.addresses import service_records
from proglog_trio.membership.addresses.lookup import LookedUp, Lookups, endpoints_of
from proglog_trio.membership.addresses.service_records import (
    MAX_ANSWER_BYTES,
    MAX_RECORDS,
    MAX_TARGETS,
    RecordsNotHad,
    ServiceRecords,
    _NoAnswer,
    _records,
)
from proglog_trio.membership.membership import JoinFailed
from proglog_trio.membership.swim.node import Endpoint
from tests.membership.addresses.name_server import NameServer, name_server
from tests.membership.running import Ours, start_ours_in
from tests.membership.wire.strategies import mutations

NAME = "_gossip._tcp.example.org"
SERVICE = ServiceName(NAME)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as running:
        yield running


async def looked_up(server: NameServer) -> LookedUp:
    return (await Lookups(records=ServiceRecords((server.address,))).look_up([SERVICE]))[SERVICE]


async def test_all_hosts_of_all_records_with_their_ports(server: NameServer) -> None:
    server.records = {
        (NAME, "SRV"): ["20 0 8401 c.example.org.", "10 5 8402 a.example.org.", "10 9 8403 b.example.org."],
        ("a.example.org", "A"): ["10.0.0.1"],
        ("a.example.org", "AAAA"): ["2001:db8::2"],
        ("b.example.org", "AAAA"): ["2001:db8::1"],
        ("c.example.org", "A"): ["10.0.0.3"],
    }
    found = await looked_up(server)
    assert found.problem is None
    assert [str(each) for each in found.endpoints] == [
        "[2001:db8::1]:8403", "10.0.0.1:8402", "[2001:db8::2]:8402", "10.0.0.3:8401",
    ]  # fmt: skip


async def test_names_are_looked_up_anew_each_time(server: NameServer) -> None:
    lookups = Lookups(records=ServiceRecords((server.address,)))
    for number in (1, 2):
        server.records = {
            (NAME, "SRV"): [f"0 0 1 n{number}.example.org."],
            (f"n{number}.example.org", "A"): ["10.0.0.1"],
        }
        server.records[f"n{number}.example.org", "A"] = [f"10.0.0.{number}"]
        assert endpoints_of(await lookups.look_up([SERVICE])) == [Endpoint.of(f"10.0.0.{number}", 1)]
    assert [kind for name, kind in server.asked if name == NAME] == ["SRV", "SRV"]


async def test_an_answer_too_large_for_a_packet_comes_by_stream_and_so_many_hosts_are_taken(server: NameServer) -> None:
    server.records[NAME, "SRV"] = [
        f"{number} 0 {number + 1} n{number}.example.org." for number in range(MAX_TARGETS + 9)
    ]
    for number in range(MAX_TARGETS + 9):
        server.records[f"n{number}.example.org", "A"] = ["10.0.0.1"]
    found = await looked_up(server)
    assert [each.port for each in found.endpoints] == list(range(1, MAX_TARGETS + 1)), "those that are preferred"


async def test_a_host_that_is_not_known_does_not_hide_the_others(server: NameServer) -> None:
    server.records = {
        (NAME, "SRV"): ["0 0 1 gone.example.org.", "0 0 2 there.example.org."],
        ("there.example.org", "A"): ["10.0.0.1"],
    }
    found = await looked_up(server)
    assert found.endpoints == (Endpoint.of("10.0.0.1", 2),)
    assert found.problem == "gone.example.org:1: there is no name gone.example.org"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, f"there is no name {NAME}"),
        ({"records": {(NAME, "A"): ["10.0.0.1"]}}, f"{NAME} has no SRV records"),
        ({"records": {(NAME, "SRV"): ["0 0 0 ."]}}, "its SRV record says that the service is not there"),
        ({"rcode": dns.rcode.REFUSED}, "it answers REFUSED"),
        ({"rcode": dns.rcode.SERVFAIL}, "it answers SERVFAIL"),
    ],
)
async def test_what_fails_is_said(server: NameServer, changes: dict[str, object], problem: str) -> None:
    for name, value in changes.items():
        setattr(server, name, value)
    found = await looked_up(server)
    assert found.endpoints == ()
    assert found.problem is not None
    assert problem in found.problem


async def test_a_silent_name_server_is_named(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_records, "SERVER_SECONDS", 0.1)
    server.silent = True
    with pytest.raises(RecordsNotHad, match=f"the name server {server.address} does not answer"):
        await ServiceRecords((server.address,)).targets(NAME)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x81\x80" + bytes(8), b"\xff" * 600, b"\x81\x80\0\1\xff\xff\0\0\0\0" + b"\xc0\x0c" * 99]
)
async def test_an_answer_that_is_none_is_passed_over(
    server: NameServer, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    monkeypatch.setattr(service_records, "SERVER_SECONDS", 0.3)
    server.garbage = garbage
    with pytest.raises(RecordsNotHad):
        await ServiceRecords((server.address,)).targets(NAME)


async def test_an_answer_with_too_much_in_it_is_not_read(server: NameServer) -> None:
    """Reading it would take long."""
    server.records[NAME, "SRV"] = [f"0 0 {number + 1} n." for number in range(MAX_RECORDS + 1)]
    with pytest.raises(RecordsNotHad, match=f"its answer has {MAX_RECORDS + 1} records, more than {MAX_RECORDS}"):
        await ServiceRecords((server.address,)).targets(NAME)
    server.records[NAME, "SRV"] = [f"0 0 {number + 1} {'x' * 63}.{'y' * 63}." for number in range(MAX_RECORDS)]
    with pytest.raises(RecordsNotHad, match=f"bytes, more than {MAX_ANSWER_BYTES}"):
        await ServiceRecords((server.address,)).targets(NAME)


async def test_another_name_server_is_asked_where_one_fails(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_records, "SERVER_SECONDS", 0.2)
    server.records[NAME, "SRV"] = ["0 0 1 a."]
    async with name_server() as failing, name_server() as silent:
        failing.rcode, silent.silent = dns.rcode.SERVFAIL, True
        records = ServiceRecords((failing.address, silent.address, Address("127.0.0.1", 1), server.address))
        assert await records.targets(NAME) == (Address("a", 1),)
        server.rcode = dns.rcode.REFUSED
        with pytest.raises(RecordsNotHad, match=r"SERVFAIL.*does not answer.*refused.*it answers REFUSED"):
            await records.targets(NAME)


async def test_a_name_may_stand_for_another(server: NameServer) -> None:
    server.records = {(NAME, "SRV"): ["0 0 1 a.example.org."], ("a.example.org", "A"): ["10.0.0.1"]}
    question = dns.message.make_query("other.example.org", "SRV")
    response = dns.message.make_response(question)
    response.answer.append(dns.rrset.from_text("other.example.org.", 5, "IN", "CNAME", f"{NAME}."))
    response.answer.append(dns.rrset.from_text(f"{NAME}.", 5, "IN", "SRV", "0 0 7 a.example.org."))
    assert [record.port for record in _records(question, response.to_wire(), "other.example.org", "SRV")] == [7]


QUESTION = dns.message.make_query(NAME, "SRV", use_edns=False)
GOOD = dns.message.make_response(QUESTION)
GOOD.answer.append(dns.rrset.from_text(f"{NAME}.", 5, "IN", "SRV", "0 0 7 a.example.org.", "1 2 3 b.example.org."))


@given(st.binary(max_size=300) | mutations(st.just(GOOD.to_wire())))
def test_of_any_answer_records_or_our_own_error_come(data: bytes) -> None:
    with contextlib.suppress(RecordsNotHad, _NoAnswer):
        assert {record.port for record in _records(QUESTION, data, NAME, "SRV")}


async def test_without_name_servers_the_systems_are_asked(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its hosts are looked up as all others, in /etc/hosts too."""
    import dns.resolver

    def read(self: dns.resolver.BaseResolver, _file: object) -> None:
        self.nameservers = [server.address.host]
        self.port = server.address.port

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read)
    server.records[NAME, "SRV"] = ["0 0 8401 localhost."]
    found = (await Lookups().look_up([SERVICE]))[SERVICE]
    assert Endpoint.of("127.0.0.1", 8401) in found.endpoints
    assert server.asked == [(NAME, "SRV")]


Start = Callable[..., Awaitable[Ours]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with start_ours_in() as start:
        yield start


async def test_a_member_joins_by_a_name_and_finds_those_that_come_to_stand_there(
    server: NameServer, start: Start
) -> None:
    first, lone = await start("first"), await start("lone")

    def stand_for(*members: Ours) -> None:
        server.records[NAME, "SRV"] = [f"0 0 {each.address.port} n.example.org." for each in members]

    server.records["n.example.org", "A"] = ["127.0.0.1"]
    stand_for(first)
    joiner = await start("joiner", join=[SERVICE], name_servers=(server.address,))
    await joiner.until_status("alive", "first")
    assert "lone" not in joiner.members()
    stand_for(first, lone)
    # By hand, as `join` does; the start addresses are looked at every few seconds.
    assert await joiner.membership.join([SERVICE]) == 2
    await joiner.until_status("alive", "first", "lone")
    del server.records[NAME, "SRV"]
    with pytest.raises(JoinFailed, match=f"srv\\+{NAME}: there is no name"):
        await joiner.membership.join([SERVICE])


async def test_a_start_address_without_records_is_tried_until_it_has_some(server: NameServer, start: Start) -> None:
    joiner = await start("joiner", join=[SERVICE], name_servers=(server.address,))
    first = await start("first")
    server.records = {
        (NAME, "SRV"): [f"0 0 {first.address.port} n.example.org."], ("n.example.org", "A"): ["127.0.0.1"],
    }  # fmt: skip
    await joiner.until_status("alive", "first")


@given(st.text())
def test_any_text_is_a_start_address_or_a_value_error(text: str) -> None:
    for written in (text, f"srv+{text}", f"_a._tcp.{text}"):
        try:
            parsed = parse_start_address(written, default_port=1)
        except ValueError:
            continue
        assert parse_start_address(str(parsed)) == parsed
