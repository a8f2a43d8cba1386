"""Who may be a member: by networks, and by what the program says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import pytest
import structlog.testing
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import AddressUnsuitable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.addresses.allowed_networks import AllowedNetworks
from proglog_trio.membership.membership import JoinFailed
from proglog_trio.membership.serf.clusters import Foreigner
from proglog_trio.membership.serf.member import Member, MemberStatus
from proglog_trio.membership.serf.merging import MAX_REASON, MergeRefused
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.memberlist import (
    Dead,
    IndirectPing,
    Message,
    NodeStateType,
    Ping,
    PushPull,
    Suspect,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import Join, UserEvent, encode_serf
from proglog_trio.steps import complete
from tests.membership.gossiping import at, bind, gossiping, open_files, udp_socket
from tests.membership.running import Ours, eventually, start_ours_in
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive, sent
from tests.membership.test_other_clusters import state_of

TENS = AllowedNetworks.of("10.0.0.0/8")
OUTSIDE = Endpoint.of("192.0.2.1", 7946)


def only_tens() -> TestedCore:
    return TestedCore.make(allows_address=TENS.allow)


def no_guests(members: Sequence[Member]) -> str | None:
    guests = [member.name for member in members if member.tags.get("role") == "guest"]
    return f"{', '.join(guests)} may not be here" if guests else None


# -- networks ----------------------------------------------------------------------------------------------------------


def test_a_member_outside_is_neither_taken_nor_passed_on() -> None:
    tested = only_tens()
    tested.take()
    tested.receive(alive("outside", 3, OUTSIDE), alive("inside", 1, THERE))
    assert tested.core.members.by_name.keys() == {"me", "inside"}
    assert tested.core.swim.rules.counters.not_admitted == 1
    (foreigner,) = [event for event in tested.said if isinstance(event, Foreigner)]
    assert foreigner.is_refused
    assert foreigner.why == "its address, 192.0.2.1, is in none of the networks that members may be in"
    assert not any(
        b"outside" in message for queue in tested.core.swim.outbox.queues for message in queue.for_packet(10, 2, 10_000)
    )


@given(st.ip_addresses(), st.booleans())
def test_no_other_address_is_ever_a_members(address: object, mapped: bool) -> None:
    tested = only_tens()
    endpoint = Endpoint.of(str(address), 7946)
    news = alive("x", 1, endpoint)
    if mapped and len(endpoint.address) == 4:
        news = evolve(news, addr=bytes(10) + b"\xff\xff" + endpoint.address)
    tested.receive(news)
    is_inside = len(endpoint.address) == 4 and endpoint.address[0] == 10
    assert ("x" in tested.core.members.by_name) == is_inside


def test_a_member_that_moves_outside_stays_what_it_was() -> None:
    tested = only_tens()
    tested.receive(alive("b", 5, THERE), Dead(incarnation=5, node="b", from_node="b"))
    assert tested.status("b") is MemberStatus.LEFT
    tested.receive(alive("b", 6, OUTSIDE))
    assert tested.status("b") is MemberStatus.LEFT
    assert tested.core.swim.rules.counters.conflicts == 0
    tested.receive(alive("b", 6, Endpoint.of("10.9.9.9", 1)))
    assert tested.status("b") is MemberStatus.ALIVE


def test_a_name_that_is_claimed_from_outside_is_no_conflict() -> None:
    tested = only_tens()
    tested.receive(alive("b", 5, THERE), alive("b", 9, OUTSIDE), alive("me", 9, OUTSIDE))
    assert tested.core.swim.rules.counters.conflicts == 0
    assert tested.core.swim.rules.counters.not_admitted == 2


def test_nothing_is_heard_from_outside_and_nothing_said_there() -> None:
    tested = only_tens()
    tested.receive(alive("b", 5, THERE))
    tested.take()
    said: list[Message] = [
        Suspect(incarnation=9, node="b", from_node="outside"),
        Dead(incarnation=9, node="b", from_node="b"),
        Ping(seq_no=1, node="me"),
        UserMessage(encode_serf(UserEvent(ltime=9, name="deploy", payload=b"", cc=False))),
    ]
    tested.receive(*said, source=OUTSIDE)
    tested.receive(IndirectPing(seq_no=1, target=OUTSIDE.address, port=1, node="x", nack=False))
    assert tested.status("b") is MemberStatus.ALIVE
    assert tested.core.events.clock.time < 9
    assert sent(list(tested.take())) == []


def test_a_join_of_members_that_are_all_outside_is_refused_and_others_are_taken_one_by_one() -> None:
    tested = only_tens()
    outside, inside = state_of("outside", OUTSIDE, None), state_of("inside", THERE, None)
    with pytest.raises(MergeRefused, match=r"192\.0\.2\.1"):
        complete(tested.core.push_pull.merge_steps(PushPull((outside,), join=True)))
    complete(tested.core.push_pull.merge_steps(PushPull((outside, inside), join=True)))
    assert tested.core.members.by_name.keys() == {"me", "inside"}
    assert tested.core.push_pull.looks_first


async def test_a_node_whose_own_address_is_not_allowed_does_not_start() -> None:
    before = open_files()
    with pytest.raises(AddressUnsuitable, match=r"own address, 127\.0\.0\.1, is in none .* be in: 10\.0\.0\.0/8"):
        await bind(allowed_networks=TENS)
    gossip = await bind(allowed_networks=TENS, advertise_host="10.0.0.1")
    await gossip.close()
    assert open_files() == before


async def test_packets_and_streams_from_outside_are_not_read() -> None:
    allowed = AllowedNetworks.of("127.0.0.1/32")
    with structlog.testing.capture_logs() as logged:
        async with gossiping(allowed_networks=allowed) as gossip, udp_socket() as inside:
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as outside:
                await outside.bind(("127.0.0.9", 0))
                (ping,) = encode_packets([Ping(seq_no=9, node="me")])
                for _ in range(3):
                    await outside.sendto(ping, at(gossip))
                await inside.sendto(ping, at(gossip))
                await inside.recvfrom(1000)
            with trio.socket.socket() as raw:
                await raw.bind(("127.0.0.9", 0))
                await raw.connect(at(gossip))
                assert await trio.SocketStream(raw).receive_some(1) == b""
            assert gossip.counters.sources_refused == 4
            assert gossip.counters.packets_received == 4
            # To nobody is said anything at an address that a message names, either.
            dropped = gossip.counters.packets_dropped
            (ping,) = encode_packets([Ping(9, "me", bytes((127, 0, 0, 9)), 1, "x")])
            await inside.sendto(ping, at(gossip))
            (ping,) = encode_packets([Ping(10, "me")])
            await inside.sendto(ping, at(gossip))
            await inside.recvfrom(1000)
            assert gossip.counters.packets_dropped == dropped + 1
    assert [each["address"] for each in logged if "not read" in each["event"]] == ["127.0.0.9"], "once an hour"


async def test_no_stream_is_opened_to_outside() -> None:
    """Whoever names the address: a start address, or a message that asks for an answer."""
    async with gossiping(allowed_networks=AllowedNetworks.of("127.0.0.1/32")) as gossip:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.9")
        async with listener:
            host, port = listener.socket.getsockname()
            outside = Endpoint.of(host, port)
            for asked in (
                partial(gossip.exchanges.look, outside),
                partial(gossip.exchanges.exchange, outside, join=True),
                partial(gossip.exchanges.answers, outside, "x", 1.0),
                partial(gossip.exchanges.seen_at, outside, 1.0),
                partial(gossip.codec.tell, outside, UserMessage(b"x"), 1.0),
            ):
                with pytest.raises(ExchangeFailed, match=r"127\.0\.0\.9, is in none of the networks"):
                    await asked()
            with trio.move_on_after(0.05) as waited:
                await listener.accept()
            assert waited.cancelled_caught


# -- the merge check ---------------------------------------------------------------------------------------------------


def test_the_merge_check_is_asked_of_who_would_become_a_member_and_of_nobody_else() -> None:
    asked: list[str] = []

    def check(members: Sequence[Member]) -> str | None:
        asked.extend(member.name for member in members)
        return no_guests(members)

    tested = TestedCore.make(merge_check=check)
    tested.receive(alive("b", 1, THERE), alive("b", 1, THERE), alive("b", 2, THERE, {"role": "other"}))
    assert asked == ["b"], "a member in good standing is not asked about again"
    tested.receive(alive("guest", 1, OUTSIDE, {"role": "guest"}), alive("guest", 2, OUTSIDE, {"role": "guest"}))
    assert asked == ["b", "guest", "guest"]
    assert tested.core.members.by_name.keys() == {"me", "b"}
    assert tested.core.swim.rules.counters.not_admitted == 2
    foreigners = [event for event in tested.said if isinstance(event, Foreigner)]
    assert foreigners == [Foreigner("guest", OUTSIDE, "guest may not be here", is_refused=True)], "told once"
    # What it says of others counts for nothing, and it is not answered.
    tested.take()
    tested.receive(Ping(seq_no=1, node="me"), Dead(incarnation=9, node="b", from_node="b"), source=OUTSIDE)
    assert tested.status("b") is MemberStatus.ALIVE
    assert tested.take() == []
    # It is a member as soon as it may be.
    tested.receive(alive("guest", 3, OUTSIDE, {"role": "resident"}), source=OUTSIDE)
    assert tested.status("guest") is MemberStatus.ALIVE
    tested.receive(Dead(incarnation=9, node="b", from_node="b"), alive("b", 10, THERE, {"role": "guest"}))
    assert tested.status("b") is MemberStatus.LEFT, "one that comes back is asked about"


def test_a_state_is_refused_as_a_whole_when_one_joins_the_other_and_member_by_member_later() -> None:
    tested = TestedCore.make(merge_check=no_guests)
    guest, other = state_of("guest", OUTSIDE, {"role": "guest"}), state_of("b", THERE, {})
    for join in (PushPull((guest, other), join=True), PushPull((guest, other))):
        with pytest.raises(MergeRefused, match="guest may not be here"):
            complete(tested.core.push_pull.merge_steps(join, join=not join.join))
    assert tested.core.members.by_name.keys() == {"me"}
    with pytest.raises(MergeRefused):
        complete(tested.core.push_pull.judge_steps(PushPull((guest,)), Sender(), join=True))
    complete(tested.core.push_pull.merge_steps(PushPull((guest, other))))
    assert tested.core.members.by_name.keys() == {"me", "b"}
    intent = UserMessage(encode_serf(Join(ltime=900, node="guest")))
    tested.receive(intent)
    assert tested.core.clock.time < 900


@given(st.lists(st.sampled_from(NodeStateType), max_size=5))
def test_the_merge_check_sees_all_members_as_they_are(states: list[NodeStateType]) -> None:
    seen: list[Member] = []

    def check(members: Sequence[Member]) -> None:
        seen.extend(members)

    tested = TestedCore.make(merge_check=check)
    nodes = tuple(state_of(f"n{number}", THERE, {"number": str(number)}, state=s) for number, s in enumerate(states))
    complete(tested.core.push_pull.judge_steps(PushPull(nodes), Sender(), join=True))
    assert [(member.name, member.status.value) for member in seen] == [
        (f"n{number}", {0: "alive", 1: "alive", 2: "failed", 3: "left"}[state]) for number, state in enumerate(states)
    ]


@pytest.mark.internal_errors
def test_a_merge_check_that_fails_lets_nobody_in_and_is_counted() -> None:
    def check(_members: Sequence[Member]) -> str | None:
        raise RuntimeError("oops")

    errors = InternalErrors()
    tested = TestedCore.make(merge_check=check, boundaries=errors.boundary)
    tested.receive(alive("b", 1, THERE))
    assert tested.core.members.by_name.keys() == {"me"}
    with pytest.raises(MergeRefused, match="cannot be told now"):
        complete(tested.core.push_pull.merge_steps(PushPull((state_of("b", THERE, {}),), join=True)))
    assert errors.counts[Where.MERGE_CHECK] == errors.total == 2


def test_a_long_reason_is_cut() -> None:
    tested = TestedCore.make(merge_check=lambda _members: "x" * 10_000)
    with pytest.raises(MergeRefused) as refused:
        complete(tested.core.push_pull.merge_steps(PushPull((state_of("b", HERE, {}),), join=True)))
    assert len(str(refused.value)) == MAX_REASON


Start = Callable[..., Awaitable[Ours]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with start_ours_in() as start:
        yield start


@pytest.mark.parametrize("joiner_checks", [True, False])
async def test_both_sides_are_told_why_a_join_is_refused(start: Start, joiner_checks: bool) -> None:
    """Whoever of the two checks; and it is logged once by the one that refuses."""

    def check(members: Sequence[Member]) -> str | None:
        strangers = [member.name for member in members if member.tags.get("team") != "blue"]
        return f"{strangers[0]} is not blue" if strangers and not joiner_checks else no_guests(members)

    with structlog.testing.capture_logs() as logged:
        first = await start(
            "blue", tags={"team": "blue", "role": "guest"}, merge_check=None if joiner_checks else check
        )
        other = await start("red", tags={"team": "red"}, merge_check=check if joiner_checks else None)
        for _ in range(2):
            why = "blue may not be here" if joiner_checks else "does not merge your cluster: red is not blue"
            with pytest.raises(JoinFailed, match=why):
                await other.membership.join([first.address])
    assert first.members().keys() == {"blue"}
    assert other.members().keys() == {"red"}
    refusals = [each["reason"] for each in logged if each["event"].startswith("a join was refused")]
    assert refusals == ([] if joiner_checks else ["red is not blue"])
    assert first.membership.counters["gossip"].streams_refused == (0 if joiner_checks else 2)


async def test_one_that_is_refused_is_brought_by_nobody_else(start: Start) -> None:
    strict = await start("strict", merge_check=no_guests)
    open_to_all = await start("open", join=[strict.address])
    await start("guest", tags={"role": "guest"}, join=[open_to_all.address])
    await open_to_all.until_status("alive", "guest", "strict")
    await start("last", join=[open_to_all.address])
    await strict.until_status("alive", "last", "open")
    assert "guest" not in strict.members()

    async def refused() -> int:
        count: int = strict.membership.counters["swim"].not_admitted
        return count

    await eventually(refused, bool)
    assert "guest" not in strict.members()
