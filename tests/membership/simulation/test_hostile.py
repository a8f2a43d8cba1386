"""Whatever is in a packet or a state, a core takes it without an error, and its memory stays bounded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.members import MAX_RECENT_INTENTS
from proglog_trio.membership.serf.seen import MAX_AT_ONE_TIME, MAX_BYTES
from proglog_trio.membership.serf.serf import Serf
from proglog_trio.membership.swim import node_table
from proglog_trio.membership.swim.broadcasts import MAX_BROADCASTS
from proglog_trio.membership.swim.effects import SendPacket
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.prober import MAX_RELAYED_PINGS
from proglog_trio.membership.swim.timers import MAX_CANCELLED
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    Suspect,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import (
    Join,
    Leave,
    Query,
    Relay,
    RelayAddress,
    RelayHeader,
    SerfMessage,
    TagFilter,
    UserEvent,
    encode_serf,
)
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.steps import complete
from tests.membership.wire.at_once import decode_packet, encode_stream

HERE = Endpoint.of("10.0.0.1", 7946)
SOURCE = Endpoint.of("10.0.0.66", 7946)
VERSION = bytes((1, 5, 2, 2, 5, 4))

U32 = st.one_of(st.integers(0, 3), st.integers(2**32 - 3, 2**32 - 1), st.integers(0, 2**32 - 1))
U64 = st.one_of(st.integers(0, 600), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1))
U16 = st.one_of(st.sampled_from([0, 7946, 65535]), st.integers(0, 65535))
NAMES = st.one_of(
    st.sampled_from(["me", "a", "b", "c", ""]), st.text(max_size=8), st.just("x" * 512), st.just("\udcff")
)
ADDRESSES = st.one_of(
    st.sampled_from([HERE.address, SOURCE.address]), st.binary(min_size=4, max_size=4), st.just(bytes(16))
)
NO_ADDRESS = st.one_of(ADDRESSES, st.just(b""))
METAS = st.one_of(st.just(b""), st.binary(max_size=20), st.just(b"\xff" * 512))
VERSIONS = st.one_of(st.just(VERSION), st.binary(min_size=6, max_size=6))
MEMBERLIST: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, seq_no=U32, node=NAMES, source_addr=NO_ADDRESS, source_port=U16, source_node=NAMES),
    st.builds(
        IndirectPing, seq_no=U32, target=ADDRESSES, port=U16, node=NAMES, nack=st.booleans(), source_addr=NO_ADDRESS,
        source_port=U16, source_node=NAMES,
    ),
    st.builds(Ack, seq_no=U32, payload=st.binary(max_size=8)),
    st.builds(Nack, seq_no=U32),
    st.builds(Suspect, incarnation=U32, node=NAMES, from_node=NAMES),
    st.builds(Alive, incarnation=U32, node=NAMES, addr=ADDRESSES, port=U16, meta=METAS, vsn=VERSIONS),
    st.builds(Dead, incarnation=U32, node=NAMES, from_node=NAMES),
    st.builds(UserMessage, st.binary(max_size=30)),
)  # fmt: skip
SERF: st.SearchStrategy[SerfMessage] = st.one_of(
    st.builds(Leave, ltime=U64, node=NAMES, prune=st.booleans()),
    st.builds(Join, ltime=U64, node=NAMES),
    st.builds(UserEvent, ltime=U64, name=st.text(max_size=4), payload=st.binary(max_size=4), cc=st.booleans()),
    st.builds(
        Query, ltime=U64, id=U32, addr=NO_ADDRESS, port=U16, source_node=NAMES,
        filters=st.one_of(st.just(()), st.builds(lambda expr: (TagFilter(tag="t", expr=expr),), st.text(max_size=12))),
        flags=st.integers(0, 3), relay_factor=st.sampled_from([0, 1, 255]), timeout=st.just(1),
        name=st.sampled_from(["q", "_serf_ping", "_serf_conflict", "_serf_list-keys"]), payload=st.binary(max_size=4),
    ),
    st.builds(
        Relay,
        st.builds(
            RelayHeader,
            dest_addr=st.builds(RelayAddress, ip=ADDRESSES, port=U16, zone=st.just("")),
            dest_name=NAMES,
        ),
        st.one_of(st.binary(max_size=10), st.just(bytes(200_000))),
    ),
)  # fmt: skip
PUSH_PULLS = st.builds(
    PushPull,
    st.lists(
        st.builds(
            NodeState, name=NAMES, addr=NO_ADDRESS, port=U16, meta=METAS, incarnation=U32,
            state=st.sampled_from(NodeStateType), vsn=VERSIONS,
        ),
        max_size=5,
    ).map(tuple),
    st.one_of(
        st.just(b""),
        st.binary(max_size=10),
        st.builds(
            SerfPushPull, ltime=U64, status_ltimes=st.dictionaries(NAMES, U64, max_size=4),
            left_members=st.lists(NAMES, max_size=3).map(tuple), event_ltime=U64, events=st.just(()), query_ltime=U64,
        ).map(encode_serf),
    ),
)  # fmt: skip


class Victim:
    """A core that does as a shell does with what its core wants: everything is put into bytes."""

    def __init__(self) -> None:
        self.core = Serf("me", HERE, {"t": "v"}, GossipProfile(), random.Random(0), lambda _event: None, now=0.0)
        self.core.start()

    def flush(self) -> None:
        effects = self.core.swim.effects
        for effect in effects:
            if isinstance(effect, SendPacket):
                encode_packets(effect.messages, checksum=effect.checksum, compress=False)
        effects.clear()

    def receive(self, *messages: Message) -> None:
        self.core.swim.receive(messages, SOURCE)
        self.flush()

    def advance(self, seconds: float) -> None:
        end = self.core.swim.now + seconds
        while (deadline := self.core.swim.next_deadline) is not None and deadline <= end:
            self.core.swim.advance(deadline)
            self.flush()
        self.core.swim.advance(end)
        self.flush()


@given(st.lists(st.one_of(MEMBERLIST, SERF, PUSH_PULLS, st.sampled_from([0.1, 1.0, 40.0])), max_size=25))
def test_no_message_makes_a_core_fail(stream: list[Message | SerfMessage | PushPull | float]) -> None:
    victim = Victim()
    for item in stream:
        if isinstance(item, float):
            victim.advance(item)
        elif isinstance(item, PushPull):
            with suppress(DecodingError):
                complete(victim.core.push_pull.merge_steps(item))
            victim.flush()
        elif isinstance(item, Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | UserMessage):
            victim.receive(item)
        else:
            victim.receive(UserMessage(encode_serf(item)))
    encode_stream(complete(victim.core.push_pull.local_state_steps(join=False)), compress=False)
    victim.core.intents.announce_join()
    victim.core.set_tags({"t": "w"})
    victim.advance(5.0)
    victim.core.intents.leave()
    victim.advance(20.0)


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_the_decoding_error(data: bytes) -> None:
    victim = Victim()
    for prefix in (b"", b"\x08", b"\x07", b"\x04", b"\x06"):
        with suppress(DecodingError):
            victim.receive(*decode_packet(prefix + data).messages)
        try:
            message = StreamDecoder(from_dialler=True).feed(prefix + data)
        except DecodingError:
            continue
        if isinstance(message, PushPull):
            complete(victim.core.push_pull.merge_steps(message))
    victim.advance(1.0)


# -- memory ------------------------------------------------------------------------------------------------------------


def batches(count: int, size: int = 100) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, start + size)


def test_members_that_somebody_makes_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over time: while they are found dead and forgotten, as many again come, and so on."""
    monkeypatch.setattr(node_table, "MAX_NODES", 300)
    monkeypatch.setattr("proglog_trio.membership.serf.members.MAX_GONE", 200)
    victim = Victim()
    for numbers in batches(3000, 250):
        for number in numbers:
            name = f"made-up-{number}"
            address = number.to_bytes(4, "big")
            victim.receive(
                Alive(incarnation=1, node=name, addr=address, port=1, meta=b"x" * 512, vsn=VERSION),
                Dead(incarnation=1, node=name, from_node=name if number % 2 else "x"),
            )
        victim.advance(20.0)
        rules, members = victim.core.swim.rules, victim.core.members
        assert len(rules.nodes) == len(rules.table.order) <= 300
        assert len(members.by_name) <= 300 + 200
        assert len(members._gone) <= 200
    # Those that live as far as anybody says make no room.
    for numbers in batches(400):
        for number in numbers:
            address = number.to_bytes(4, "big")
            victim.receive(Alive(incarnation=1, node=f"lives-{number}", addr=address, port=1, meta=b"", vsn=VERSION))
    assert len(victim.core.swim.rules.nodes) == 300
    assert victim.core.swim.rules.counters.beyond_limit


def test_timers_of_suspicions_that_come_and_go_are_bounded() -> None:
    victim = Victim()
    for incarnation in range(1, 5000):
        victim.receive(
            Alive(incarnation=incarnation, node="a", addr=SOURCE.address, port=1, meta=b"", vsn=VERSION),
            Suspect(incarnation=incarnation, node="a", from_node="b"),
        )
    assert len(victim.core.swim.rules.timers._heap) < 4 * MAX_CANCELLED


def test_intents_are_bounded() -> None:
    victim = Victim()
    for numbers in batches(MAX_RECENT_INTENTS + 3000, 1000):
        victim.receive(*(UserMessage(encode_serf(Leave(ltime=9, node=f"x{number}", prune=True))) for number in numbers))
    assert len(victim.core.members._recent) == MAX_RECENT_INTENTS
    assert sum(map(len, victim.core.swim.outbox.queues)) <= MAX_BROADCASTS + 1
    assert victim.core.swim.outbox.queues[1].dropped


def test_events_are_bounded_in_bytes_and_in_number() -> None:
    victim = Victim()
    for time in range(1, 120):
        for number in range(5):
            event = UserEvent(ltime=time, name=str(number), payload=bytes(60_000), cc=False)
            victim.core.receive(encode_serf(event))
        victim.flush()
    recent = victim.core.events.recent
    assert recent._bytes <= MAX_BYTES
    assert sum(len(payload) for _, events in recent.items() for _, payload in events) <= MAX_BYTES
    for number in range(2000):
        victim.core.receive(encode_serf(UserEvent(ltime=119, name=str(number), payload=b"", cc=False)))
    assert max(len(events) for _, events in recent.items()) <= MAX_AT_ONE_TIME
    encode_stream(complete(victim.core.push_pull.local_state_steps(join=False)), compress=False)


def test_queries_are_bounded() -> None:
    victim = Victim()
    for number in range(3000):
        query = Query(
            ltime=7, id=number, addr=SOURCE.address, port=1, source_node="x", filters=(), flags=1, relay_factor=3,
            timeout=1, name="q", payload=b"",
        )  # fmt: skip
        victim.receive(UserMessage(encode_serf(query)))
    assert [len(ids) for _, ids in victim.core.querying.recent.items()] == [MAX_AT_ONE_TIME]


def test_pings_for_others_are_bounded() -> None:
    victim = Victim()
    for number in range(MAX_RELAYED_PINGS + 1000):
        victim.receive(IndirectPing(seq_no=number, target=SOURCE.address, port=1, node="x", nack=True))
    assert len(victim.core.swim.prober._relayed) == MAX_RELAYED_PINGS
