"""Hypothesis strategies for everything that the codec knows."""

from __future__ import annotations

from hypothesis import strategies as st

from proglog_trio.membership.wire.coordinates import Coordinate
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    ErrorMessage,
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
from proglog_trio.membership.wire.serf import (
    ConflictResponse,
    Join,
    KeyRequest,
    KeyResponse,
    Leave,
    Member,
    MemberStatus,
    NodeFilter,
    Query,
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    SerfMessage,
    TagFilter,
    UnknownFilter,
    UserEvent,
)
from proglog_trio.membership.wire.state import Event, EventsAtTime, SerfPushPull
from proglog_trio.membership.wire.stream import StreamMessage

u8 = st.integers(0, 2**8 - 1)
u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
ltimes = st.integers(0, 2**64 - 1)
raw = st.binary(max_size=80)
# any bytes can be text, and have to survive
texts = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")) | st.text(max_size=12)
names = texts
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
addresses_or_none = addresses | st.just(b"")
metas = st.binary(max_size=512)
vsns = st.binary(min_size=6, max_size=6)
tags = st.dictionaries(texts, texts, max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False)
coordinates = st.builds(Coordinate, st.lists(numbers, max_size=9).map(tuple), numbers, numbers, numbers)
keyrings = st.lists(
    st.sampled_from((16, 24, 32)).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    min_size=1,
    max_size=3,
    unique=True,
).map(Keyring)
labels = st.binary(max_size=20) | st.binary(min_size=255, max_size=255)

pings = st.builds(Ping, u32, names, addresses_or_none, u16, names)
acks = st.builds(Ack, u32, raw)
user_messages = st.builds(UserMessage, st.binary(max_size=300))
messages: st.SearchStrategy[Message] = st.one_of(
    pings,
    acks,
    user_messages,
    st.builds(IndirectPing, u32, addresses, u16, names, st.booleans(), addresses_or_none, u16, names),
    st.builds(Nack, u32),
    st.builds(Suspect, u32, names, names),
    st.builds(Alive, u32, names, addresses, u16, metas, vsns),
    st.builds(Dead, u32, names, names),
)

node_states = st.builds(
    NodeState, names, addresses_or_none, u16, metas, u32, st.sampled_from(tuple(NodeStateType)), vsns
)
push_pulls = st.builds(PushPull, st.lists(node_states, max_size=5).map(tuple), st.binary(max_size=300), st.booleans())
stream_messages: st.SearchStrategy[StreamMessage] = st.one_of(
    pings, acks, user_messages, push_pulls, st.builds(ErrorMessage, texts)
)

unknown_filters = st.builds(UnknownFilter, st.just(b"") | st.binary(min_size=1, max_size=9).filter(lambda d: d[0] > 1))
filters = st.one_of(
    st.builds(NodeFilter, st.lists(names, max_size=3).map(tuple)), st.builds(TagFilter, texts, texts), unknown_filters
)
events_at_time = st.builds(EventsAtTime, ltimes, st.lists(st.builds(Event, texts, raw), max_size=3).map(tuple))
members = st.builds(
    Member, names, addresses_or_none, u16, tags, st.sampled_from(tuple(MemberStatus)), u8, u8, u8, u8, u8, u8
)
serf_messages: st.SearchStrategy[SerfMessage] = st.one_of(
    st.builds(Leave, ltimes, names, st.booleans()),
    st.builds(Join, ltimes, names),
    st.builds(
        SerfPushPull,
        ltimes,
        st.dictionaries(names, ltimes, max_size=5),
        st.lists(names, max_size=3).map(tuple),
        ltimes,
        st.lists(st.none() | events_at_time, max_size=5).map(tuple),
        ltimes,
    ),
    st.builds(UserEvent, ltimes, texts, raw, st.booleans()),
    st.builds(
        Query,
        ltimes,
        u32,
        addresses_or_none,
        u16,
        names,
        st.lists(filters, max_size=3).map(tuple),
        u32,
        u8,
        u63,
        texts,
        raw,
    ),
    st.builds(QueryResponse, ltimes, u32, names, u32, raw),
    st.builds(ConflictResponse, st.none() | members),
    st.builds(KeyRequest, raw),
    st.builds(KeyResponse, st.booleans(), texts, st.lists(texts, max_size=3).map(tuple), texts),
    st.builds(Relay, st.builds(RelayHeader, st.builds(RelayAddress, addresses, u16, texts), names), raw),
)


@st.composite
def mutations(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes that were changed in a few places: overwritten, inserted, cut out, or cut off."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + draw(st.sampled_from((0, 1, 1, 4, 10_000))), len(data))))
        data[start:end] = draw(st.binary(max_size=5))
    return bytes(data)


_leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=20))
msgpack_objects = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def wrong_maps(keys: list[str]) -> st.SearchStrategy[dict[bytes, object]]:
    """Give maps whose keys are right and whose values are anything."""
    return st.dictionaries(st.sampled_from([key.encode() for key in keys]), msgpack_objects, max_size=len(keys))
