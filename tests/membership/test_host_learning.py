"""What others are told of a node that cannot know its own address: learnt from members, behind a translation too."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable, AddressUnsuitable
from proglog_trio.membership import host_learning
from proglog_trio.membership.addresses.allowed_networks import AllowedNetworks
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.host_learning import local_address, may_be_told, most_told
from proglog_trio.membership.membership import Membership
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.coordinates import (
    Coordinate,
    decode_ack_payload,
    decode_seen_payload,
    encode_ack_payload,
    encode_seen_payload,
)
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import encode_key
from proglog_trio.membership.wire.memberlist import Ack, Ping
from tests.membership.gossiping import gossiping
from tests.membership.running import LOCAL, Ours, Peers, start_ours_in
from tests.membership.test_membership import Names

Start = Callable[..., Awaitable[Ours]]
OUTSIDE = "127.0.0.9"
"""Of which a member of another side knows a node; this machine has all of 127/8."""


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with start_ours_in() as start:
        yield start


@asynccontextmanager
async def translation(target: Address, outside: str = OUTSIDE) -> AsyncIterator[Address]:
    """Pass streams on to a member, which sees them come from the address outside."""

    async def pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()

    async def serve(inner: trio.SocketStream) -> None:
        outer = await trio.open_tcp_stream(target.host, target.port, local_address=outside)
        async with outer, trio.open_nursery() as both:
            both.start_soon(pass_on, inner, outer)
            both.start_soon(pass_on, outer, inner)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Address("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def learner(name: str = "learner", **options: object) -> AsyncIterator[Membership]:
    config = GossipConfig(name=name, profile=LOCAL, learn_host=True, **options)  # type: ignore[arg-type]  # each its type
    membership = await bind_membership(config, {}, handler=Peers())
    try:
        yield membership
    finally:
        await membership.close()


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what this is about


# -- the decision ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"\1\1\1\1", b"\2\2\2\2", b"\3\3\3\3"])))
def test_what_most_say_counts_and_of_equals_what_was_said_first(told: list[bytes]) -> None:
    decided = most_told(told)
    if not told:
        assert decided is None
        return
    assert decided is not None
    most = max(told.count(each) for each in told)
    assert told.count(decided) == most
    assert told.index(decided) == min(told.index(each) for each in told if told.count(each) == most)


@given(st.ip_addresses(), st.sampled_from([4, 16]), st.ip_addresses())
def test_nothing_is_told_that_nobody_could_dial(
    seen: ipaddress.IPv4Address | ipaddress.IPv6Address,
    size: int,
    by: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if may_be_told(seen.packed, bytes(size), Endpoint(by.packed, 1)):
        assert len(seen.packed) == size
        assert not seen.is_unspecified
        assert not seen.is_multicast
        assert not seen.is_loopback or by.is_loopback


@pytest.mark.parametrize(
    ("seen", "by", "may"),
    [
        ("192.0.2.1", "198.51.100.1", True),
        ("127.0.0.1", "198.51.100.1", False),
        ("127.0.0.2", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", False),  # noqa: S104 - it is refused
        ("255.255.255.255", "198.51.100.1", False),
        ("224.0.0.1", "198.51.100.1", False),
        ("2001:db8::1", "198.51.100.1", False),
    ],
)
def test_which_addresses_are_told(seen: str, by: str, may: bool) -> None:
    assert may_be_told(Endpoint.of(seen, 0).address, bytes(4), Endpoint.of(by, 1)) is may


def test_by_which_address_this_machine_reaches_another() -> None:
    assert local_address(Endpoint.of("127.0.0.5", 1), bytes(4)) == bytes((127, 0, 0, 1))
    assert local_address(Endpoint.of("::1", 1), bytes(4)) is None


coordinates = st.builds(
    Coordinate, st.lists(st.floats(-1, 1), min_size=8, max_size=8).map(tuple), *[st.floats(0, 1)] * 3
)


@given(coordinates, st.sampled_from([0, 4, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_what_is_seen_stands_beside_a_coordinate_that_all_can_read(coordinate: Coordinate, seen: bytes) -> None:
    payload = encode_seen_payload(coordinate, seen)
    assert decode_seen_payload(payload) == seen
    assert decode_ack_payload(payload) == coordinate
    assert decode_seen_payload(encode_ack_payload(coordinate)) == b"", "as agents answer, if with anything"


@given(st.binary(max_size=60).map(lambda data: b"\1" + data) | st.binary(max_size=60))
def test_of_any_bytes_an_address_or_our_own_error_comes(data: bytes) -> None:
    try:
        assert len(decode_seen_payload(data)) in (0, 4, 16)
    except DecodingError as error:
        assert error.where[:1] == ("coordinate",)  # noqa: PT017 - either is right


# -- asking ------------------------------------------------------------------------------------------------------------


async def test_a_node_that_listens_everywhere_is_told_where_it_is_seen(start: Start) -> None:
    first = await start("first")
    async with translation(first.address) as address:
        joiner = await start("joiner", host=EVERYWHERE, learn_host=True, join=[address])
    assert joiner.address.host == OUTSIDE
    await first.until_status("alive", "joiner")
    assert first.members()["joiner"].address == OUTSIDE
    # It is there indeed, as far as first can tell.
    await first.until_measured("joiner")


async def test_what_most_of_the_first_few_say_counts(start: Start) -> None:
    members = [await start(name) for name in "abc"]
    async with (
        translation(members[0].address, "127.0.0.8") as liar,
        translation(members[1].address) as b,
        translation(members[2].address) as c,
        learner(bind_host=EVERYWHERE) as membership,
    ):
        with structlog.testing.capture_logs() as logged:
            await membership.learn_host([liar, b, c])
        assert membership.address.host == OUTSIDE
    (said,) = [each for each in logged if each["event"].startswith("learnt")]
    assert (said["told_by"], said["of"], said["log_level"]) == (2, 3, "warning")


async def test_of_few_start_addresses_the_members_that_they_know_are_asked(start: Start) -> None:
    first = await start("first")
    for name in "bcd":
        member = await start(name, join=[first.address])
        await first.until_status("alive", name)
        await member.until_status("alive", "first")
    # One of four is behind a translation; the others see the truth.
    async with translation(first.address) as address, learner(bind_host=EVERYWHERE) as membership:
        await membership.learn_host([address])
        assert membership.address.host == "127.0.0.1"


async def test_with_a_key_and_a_cluster_as_well(start: Start) -> None:
    key = encode_key(bytes(range(32)))
    first = await start("first", key=key, tags={"cluster": "x"}, cluster_tag="cluster")
    async with translation(first.address) as address:
        options = {"key": key, "tags": {"cluster": "x"}, "cluster_tag": "cluster"}
        joiner = await start("joiner", host=EVERYWHERE, learn_host=True, join=[address], **options)
    assert joiner.address.host == OUTSIDE


async def test_nodes_that_all_begin_learn_from_each_other() -> None:
    """None of them is a member yet, and each says where it sees the others; of itself it says nothing."""
    async with learner("a", bind_host="127.0.0.1") as a, learner("b", bind_host=EVERYWHERE) as b:
        addresses = [Address("127.0.0.1", a.address.port), Address("127.0.0.1", b.address.port)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.learn_host, addresses)
            nursery.start_soon(b.learn_host, addresses)
        assert (a.address.host, b.address.host) == ("127.0.0.1", "127.0.0.1")


async def test_a_slow_name_server_is_waited_for_if_no_name_is_found_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Names):
        asked = 0

        async def getaddrinfo(self, *arguments: Any, **more: Any) -> list[Any]:
            self.asked += 1
            if self.asked == 1:
                await trio.sleep_forever()
            return await super().getaddrinfo(*arguments, **more)

    monkeypatch.setattr(host_learning, "FIRST_LOOKUP_SECONDS", 0.05)
    first = await start("first")
    async with translation(first.address) as address, learner(bind_host="127.0.0.1") as membership:
        trio.socket.set_custom_hostname_resolver(Slow(seed=["127.0.0.1"]))
        await membership.learn_host([Address("seed", address.port)])
    assert membership.address.host == OUTSIDE


async def test_if_nobody_answers_it_is_what_the_node_listens_on() -> None:
    async with learner(bind_host="127.0.0.1") as membership:
        with structlog.testing.capture_logs() as logged:
            await membership.learn_host([Address("127.0.0.1", 1)])
        assert membership.address.host == "127.0.0.1"
    assert any("taking the one that it listens on" in each["event"] for each in logged)


async def test_if_nobody_answers_and_the_node_listens_everywhere_nothing_is_known_and_it_may_pass(start: Start) -> None:
    async with learner(bind_host=EVERYWHERE) as membership:
        with pytest.raises(AddressUnavailable, match=r"none answers: 127\.0\.0\.1:1: .*failed") as raised:
            await membership.learn_host([Address("127.0.0.1", 1)])
        assert raised.value.may_pass
        with pytest.raises(AddressUnavailable, match="no start address of another"):
            await membership.learn_host([])
        first = await start("first")
        await membership.learn_host([first.address])
        assert membership.address.host == "127.0.0.1"


async def test_an_address_that_no_member_may_have_is_not_taken(start: Start) -> None:
    first = await start("first")
    allowed = AllowedNetworks.of("127.0.0.1/32")
    async with translation(first.address) as address, learner(allowed_networks=allowed) as membership:
        with pytest.raises(AddressUnsuitable, match=OUTSIDE):
            await membership.learn_host([address])


async def test_a_member_says_where_it_sees_who_asks_without_a_name_and_to_nobody_else() -> None:
    async with gossiping() as gossip:

        async def seen(ping: Ping) -> bytes:
            answer = await gossip.codec.ask(gossip.endpoint, ping, 30)
            assert isinstance(answer, Ack)
            return decode_seen_payload(answer.payload)

        assert await seen(Ping(1, source_node="another")) == bytes((127, 0, 0, 1))
        assert await seen(Ping(1, "me", source_node="another")) == b""
        assert await seen(Ping(1, source_node="me")) == b"", "this node itself"
