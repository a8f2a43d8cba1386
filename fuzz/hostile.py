"""Hostile cases: what somebody outside sends to make a node work, each made for the work that it causes, not by chance.

Used by `python -m fuzz.holds`, which measures how long they hold the loop, and by the tests, which count.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Sequence

import attrs
import h2.config
import h2.connection
import h2.settings
import msgpack
from attrs import evolve, field, frozen
from dnslib import DNSRecord

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.record import payload_crc
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import (
    Alive,
    Dead,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    PushPullHeader,
    UserMessage,
    encode_message,
)
from proglog_trio.membership.wire.msgpack_structs import encode_object, encode_struct
from proglog_trio.membership.wire.serf import TagFilter, UserEvent, encode_serf
from proglog_trio.membership.wire.stream import encode_stream_steps
from proglog_trio.membership.wire.tags import encode_tags
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.steps import complete

MIB = 1024 * 1024
VERSION = bytes((1, 5, 2, 2, 5, 4))
KEYS = tuple(bytes((number,)) * 32 for number in range(1, 33))
"""Of a node that has many."""
_STATE_TYPE = b"\x02"


@frozen(kw_only=True)
class Attack:
    """What is sent, in this order: streams one after the other, or all at once; then packets, then connections.

    Attributes:
        watchers: to the RPC port before all else, each in pieces; they read whatever comes until all is over.
        streams: to the gossip port, by TCP, each in pieces that are sent by themselves.
        at_once: how many of the streams are open at once.
        packets: to the gossip port, by UDP, as fast as they go.
        connections: to the RPC port, each in pieces.
        agent_requests: to the port of the agent's RPC, each in pieces; each connection greets first.
        requests: paths on the metrics port.
        questions: of DNS, by UDP, as fast as they go.
        dns_streams: to the port for DNS by TCP, each in pieces.
        wait_seconds: how long the node has to itself afterwards, for what it does by the clock.
        many_keys: the node's gossip is encrypted, with KEYS.
    """

    watchers: Sequence[Sequence[bytes]] = ()
    streams: Sequence[Sequence[bytes]] = ()
    at_once: int = 1
    packets: Sequence[bytes] = ()
    connections: Sequence[Sequence[bytes]] = ()
    agent_requests: Sequence[Sequence[bytes]] = ()
    requests: Sequence[str] = ()
    questions: Sequence[bytes] = ()
    dns_streams: Sequence[Sequence[bytes]] = ()
    wait_seconds: float = 0.0
    many_keys: bool = False


@frozen
class Case:
    """A hostile case; make: makes what is sent, which may take seconds."""

    name: str
    make: Callable[[], Attack] = field(repr=False)


def _address(number: int) -> bytes:
    # Of the loopback network, where nobody answers and nothing leaves the machine.
    return bytes((127,)) + (0x100 + number).to_bytes(3, "big")


def node_states(
    count: int, meta: bytes = b"", state: NodeStateType = NodeStateType.ALIVE, first: int = 0
) -> tuple[NodeState, ...]:
    """Members that there are not."""
    return tuple(
        NodeState(
            name=f"member-{number}", addr=_address(number), port=9, meta=meta, incarnation=1, state=state, vsn=VERSION
        )
        for number in range(first, first + count)
    )


def dead(name: str) -> Dead:
    """News that a member is dead."""
    return Dead(incarnation=1, node=name, from_node="x")


def plain_state(count: int, meta: bytes = b"", state: NodeStateType = NodeStateType.ALIVE, first: int = 0) -> bytes:
    """A push/pull of so many, as it stands on a stream, not compressed."""
    return bytes(complete(encode_stream_steps(PushPull(node_states(count, meta, state, first)), compress=False)))


def user_state(fields: dict[bytes, bytes]) -> bytes:
    """A push/pull without nodes and with a Serf state of these fields, whose values are packed already."""
    body = bytes((0x80 | len(fields),)) + b"".join(encode_object(name) + value for name, value in fields.items())
    state = _STATE_TYPE + body
    return b"\x06" + encode_struct(PushPullHeader(0, len(state), False)) + state


def map_of(entries: int, entry: Callable[[int], bytes]) -> bytes:
    """A packed map of so many packed entries."""
    return b"\xdf" + entries.to_bytes(4, "big") + b"".join(map(entry, range(entries)))


def list_of(elements: int, element: Callable[[int], bytes]) -> bytes:
    """A packed list."""
    return b"\xdd" + elements.to_bytes(4, "big") + b"".join(map(element, range(elements)))


def _last_by_itself(data: bytes) -> tuple[bytes, bytes]:
    return data[:-1], data[-1:]


# -- streams -----------------------------------------------------------------------------------------------------------


def empty_states(count: int) -> bytes:
    """A compressed push/pull of states that say nothing: a million in 50 kB."""
    state = b"\x81\xa3Vsn\xa6" + VERSION
    return compressed_layer(b"\x06" + encode_struct(PushPullHeader(count, 0, False)) + state * count)


def _time_entry(number: int) -> bytes:
    return encode_object(f"m{number}".encode()) + b"\x01"


def _times(count: int) -> Attack:
    data = user_state({b"StatusLTimes": map_of(count, _time_entry)})
    return Attack(streams=[_last_by_itself(data)])


def _left(count: int) -> Attack:
    data = user_state({b"LeftMembers": list_of(count, lambda number: encode_object(f"m{number}".encode()))})
    return Attack(streams=[_last_by_itself(data)])


def events_state(times: int, each: int, payload_bytes: int) -> bytes:
    """A push/pull of events: so many Lamport times with so many events each."""

    def at(time: int) -> bytes:
        events = [{b"Name": b"e%d" % number, b"Payload": os.urandom(payload_bytes)} for number in range(each)]
        return encode_object({b"Events": events, b"LTime": time + 1})

    return user_state({b"EventLTime": encode_object(times + 2), b"Events": list_of(times, at)})


def _remembered_events() -> Attack:
    # What agents may have: 512 events of 8.9 kB. Each exchange after the first brings all of them back.
    return Attack(
        streams=[
            (events_state(512, 1, 8900),),
            *[(bytes(complete(encode_stream_steps(PushPull(), compress=False))),)] * 3,
        ]
    )


def _no_pattern() -> Attack:
    data = compressed_layer(b"\x08" + encode_struct_length(4 * MIB) + random.Random(1).randbytes(4 * MIB))
    return Attack(streams=[_last_by_itself(data)])


def encode_struct_length(length: int) -> bytes:
    """The header of a user message of so many bytes."""
    return encode_object({b"UserMsgLen": length})


def _wrong_kinds() -> Attack:
    large = b"\xdb" + (15 * MIB).to_bytes(4, "big") + bytes(15 * MIB)
    return Attack(
        streams=[
            (user_state({b"LTime": large}),),
            (user_state({b"Unknown": large}),),
            (user_state({b"StatusLTimes": large}),),
            (user_state({b"Unknown": b"\x91" * 2_000_000 + b"\x90"}),),
            (user_state({b"Events": list_of(1, lambda _: encode_object({b"LTime": [[]] * 1000, b"Events": 7}))}),),
        ]
    )


def _sealed_garbage() -> Attack:
    garbage = b"\x01" + bytes(12) + random.Random(1).randbytes(19 * MIB)
    return Attack(streams=[(b"\x0a" + len(garbage).to_bytes(4, "big") + garbage,)], many_keys=True)


def _die_together() -> Attack:
    # Suspected as soon as they are known, dead some seconds later, all forgotten after that.
    many = 8000
    return Attack(streams=[(plain_state(many),), (plain_state(many, state=NodeStateType.SUSPECT),)], wait_seconds=60.0)


# -- packets -----------------------------------------------------------------------------------------------------------


def query(filters: bytes, *, number: int = 1, relay_factor: int = 0, flags: int = 0) -> bytes:
    """A query with filters that are packed already, as it stands in a packet."""
    fields = {
        b"LTime": 5, b"ID": number, b"Addr": bytes((127, 0, 0, 1)), b"Port": 9, b"SourceNode": b"x", b"Flags": flags,
        b"RelayFactor": relay_factor, b"Timeout": 10**9, b"Name": b"q", b"Payload": b"",
    }  # fmt: skip
    packed = b"".join(encode_object(name) + encode_object(value) for name, value in fields.items())
    body = bytes((0x80 | (len(fields) + 1),)) + packed + encode_object(b"Filters") + filters
    return b"\x08\x04" + body


def _packed(message: bytes) -> bytes:
    return compressed_layer(message)


def _matching_filters(count: int) -> Attack:
    one = encode_object(b"\1" + encode_struct(TagFilter(tag="", expr="")))
    return Attack(packets=[_packed(query(list_of(count, lambda _: one), number=each)) for each in range(64)])


def _name_filters() -> Attack:
    names = encode_object(b"\0" + list_of(4000, lambda _: b"\xa0"))
    return Attack(packets=[_packed(query(list_of(14, lambda _: names), number=each)) for each in range(64)])


def _costly_expressions() -> Attack:
    def filters(number: int) -> bytes:
        return list_of(16, lambda each: encode_object(
            b"\1" + encode_struct(TagFilter(tag="", expr=rf"{number}{each}" + r"\pL?" * 60))
        ))  # fmt: skip

    def one(number: int) -> bytes:
        return list_of(
            1, lambda _: encode_object(b"\1" + encode_struct(TagFilter(tag="", expr=f"{number}?" + r"\pL?" * 62)))
        )

    several = [_packed(query(filters(number), number=number)) for number in range(32)]
    return Attack(packets=[*several, *(_packed(query(one(number), number=100 + number)) for number in range(64))])


def _compound(messages: Sequence[bytes]) -> bytes:
    lengths = b"".join(len(message).to_bytes(2, "big") for message in messages)
    return bytes((7, len(messages))) + lengths + b"".join(messages)


def _many_pings() -> Attack:
    pings = [
        encode_message(Ping(seq_no=number, node="", source_addr=bytes((127, 0, 0, 1)), source_port=9, source_node="x"))
        for number in range(255)
    ]
    return Attack(packets=[_packed(_compound(pings))] * 64)


def _many_members() -> Attack:
    tags = encode_tags({f"t{number}": "" for number in range(80)})

    def alive(number: int) -> bytes:
        return encode_message(
            Alive(incarnation=1, node=f"p{number}", addr=_address(number), port=9, meta=tags, vsn=VERSION)
        )

    return Attack(
        packets=[_packed(_compound([alive(first + number) for number in range(80)])) for first in range(0, 5000, 80)]
    )


def _packet_without_pattern() -> Attack:
    noise = random.Random(1)
    data = [compressed_layer(b"\x08" + noise.randbytes(44_000)) for _ in range(4)]
    return Attack(packets=[packet for packet in data if len(packet) < 65_000] * 16)


def _relays() -> Attack:
    packets = [query(b"\x90", number=number, relay_factor=255, flags=1) for number in range(64)]
    return Attack(streams=[(plain_state(400),)], packets=packets)


def _many_events() -> Attack:
    def event(number: int) -> bytes:
        return encode_message(UserMessage(encode_serf(UserEvent(ltime=1, name=f"{number}", payload=b"", cc=False))))

    return Attack(
        packets=[
            _packed(_compound([event(first + number) for number in range(255)])) for first in range(0, 20_400, 255)
        ]
    )


def _user_queries() -> Attack:
    messages = [query(b"\x90", number=number, flags=1) for number in range(20_400)]
    return Attack(packets=[_packed(_compound(messages[start : start + 255])) for start in range(0, 20_400, 255)])


def _large_events() -> Attack:
    """Events that fit into no packet: each is passed on by streams to others, which are not there."""
    noise = random.Random(1)

    def stream(number: int) -> tuple[bytes]:
        event = UserEvent(ltime=1 + number, name="e", payload=noise.randbytes(15_000), cc=False)
        return (bytes(complete(encode_stream_steps(UserMessage(encode_serf(event)), compress=False))),)

    return Attack(streams=[(plain_state(400),), *map(stream, range(256))], wait_seconds=2.0)


# -- RPC ---------------------------------------------------------------------------------------------------------------


def request(path: str, message: bytes, extra: Sequence[tuple[str, str]] = (), *, end: bool = True) -> list[bytes]:
    """A connection on which one request is made; in two pieces, so that the answer to the greeting can come between."""
    connection = _connection()
    greeting = connection.data_to_send()
    connection.send_headers(1, [*_headers(path), *extra])
    head = connection.data_to_send()
    # By hand: what the other side allows is not known here, and is asked for in vain when it is too little.
    data = prefixed(message)
    frames = [data[start : start + 16_384] for start in range(0, len(data), 16_384)]
    last = len(frames) - 1
    body = b"".join(
        len(part).to_bytes(3, "big")
        + b"\0"
        + (b"\1" if end and number == last else b"\0")
        + (1).to_bytes(4, "big")
        + part
        for number, part in enumerate(frames)
    )
    return [greeting, head + body]


def _connection() -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    )
    connection.initiate_connection()
    connection.increment_flow_control_window(2**30)
    return connection


def _headers(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "node"), ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]  # fmt: skip


def _many_fields() -> Attack:
    return Attack(
        connections=[
            request("/log.v1.Cluster/Join", b"\x0a\x00" * 32_768),
            request("/log.v1.Cluster/Join", b"\x0a\x00" * 32_769),
            request("/log.v1.Cluster/ChangeTags", b"\x12\x00" * 32_768),
            request("/log.v1.Cluster/ChangeTags", b"\x0a\x05\x0a\x03\xc3\xbcx" * 9_362),
            request("/log.v1.Log/ConsumeBatches", b"\x08\x01" * 32_768),
            request("/log.v1.Log/Produce", b"\x0a\x00" * 32_768),
            request("/log.v1.Log/ProduceBatches", (b"\x0a\x00" * 32_768)),
            request("/log.v1.Log/ProduceBatches", b"\x0a\x00" * 32_700 + b"\x0a\x80\x80\x80\x01" + bytes(2 * MIB)),
            request("/log.v1.Log/ProduceStream", b"\x0a\x00" * 500_000),
            request("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x0a\x00" * 500_000),
        ]
    )


def _many_small_messages() -> Attack:
    small = prefixed(b"\x0a\x00" * 60) * 2000
    head = request("/log.v1.Log/ProduceBatches", b"")
    pulls = request("/log.v1.Replication/Pull", b"")
    return Attack(connections=[[*head, _data_frames(small)], [*pulls, _data_frames(small)]])


def _data_frames(data: bytes) -> bytes:
    return b"".join(
        len(part).to_bytes(3, "big") + b"\0\0" + (1).to_bytes(4, "big") + part
        for part in (data[start : start + 16_384] for start in range(0, len(data), 16_384))
    )


def _payload(element: bytes) -> bytes:
    count = (4 * MIB - 70_000) // len(element)
    payload = b"\xdd" + count.to_bytes(4, "big") + element * count
    return log_v1.ProduceBatchRequest(
        payload=payload, count=count, payload_crc=payload_crc(payload)
    ).SerializeToString()


def _many_elements() -> Attack:
    return Attack(
        connections=[
            request("/log.v1.Log/ProduceBatches", _payload(element)) for element in (b"\x90", b"\xc0", b"\x91\xc4\x01x")
        ]
    )


def _position() -> Attack:
    noise = random.Random(1)
    position = Position({Origin(noise.randbytes(16)): Range(0, 1) for _ in range(30_000)})
    message = log_v1.ConsumeBatchesRequest(position=position.encode())
    return Attack(connections=[request("/log.v1.Log/ConsumeBatches", message.SerializeToString())])


def _positions() -> Attack:
    noise = random.Random(1)
    ranges = [log_v1.OriginRange(origin=noise.randbytes(16), low=0, next=5) for _ in range(3000)]
    hello = log_v1.Hello(version=1, cluster_name="proglog", node_name="x", directory_id=b"12345678")
    message = log_v1.PullRequest(hello=hello, positions=log_v1.Positions(ranges=ranges))
    return Attack(connections=[request("/log.v1.Replication/Pull", message.SerializeToString(), end=False)] * 3)


def _full_pulls() -> Attack:
    """Requests that have as many of one kind as may be, of each kind."""
    noise = random.Random(1)
    hello = bytes(log_v1.PullRequest(hello=log_v1.Hello(version=1, cluster_name="proglog", directory_id=b"12345678")))
    origins = [noise.randbytes(16) for _ in range(6600)]
    ids = [noise.randbytes(8) for _ in range(10_500)]
    edges = [*range(128), *range(128, 16_384), *range(16_384, 16_384 + 32_000)]
    held = log_v1.OriginRange(origin=origins[0], next=2**32, gaps=edges)
    not_held = [log_v1.RangesNotHeld(place=0, edges=[1, 2])] * 13_000
    return Attack(
        connections=[
            request("/log.v1.Replication/Pull", hello + bytes(message), end=False)
            for message in (
                log_v1.PullRequest(positions=log_v1.Positions(ranges=[held])),
                log_v1.PullRequest(positions=log_v1.Positions(forgotten=origins)),
                log_v1.PullRequest(others=[log_v1.HolderNews(directory_id=each) for each in ids]),
                log_v1.PullRequest(others=[log_v1.HolderNews(directory_id=ids[0], origins=origins, nexts=[5] * 6600)]),
                log_v1.PullRequest(
                    others=[log_v1.HolderNews(directory_id=ids[0], origins=origins[:1], nexts=[5], not_held=not_held)]
                ),
                log_v1.PullRequest(wants=[log_v1.Want(origin=each) for each in origins[:6000]]),
                log_v1.PullRequest(stops=origins),
                log_v1.PullRequest(directories=[log_v1.KnownDirectory(directory_id=each) for each in ids]),
                log_v1.PullRequest(directories=[log_v1.KnownDirectory()] * 32_000),
            )
        ]
    )


def _many_headers_of_a_record() -> Attack:
    headers = {f"{number}": b"" for number in range(6500)}
    message = log_v1.ProduceRequest(record=log_v1.Record(value=bytes(MIB), headers=headers)).SerializeToString()
    short = log_v1.ProduceRequest(record=log_v1.Record(headers=headers)).SerializeToString()
    return Attack(
        connections=[
            request(f"/log.v1.Log/{name}", each)
            for name in ("Produce", "ProduceStream")
            for each in (message, short, message + short)
        ]
    )


def _small_frames() -> Attack:
    greeting = _connection().data_to_send()
    update = (4).to_bytes(3, "big") + b"\x08\0" + (0).to_bytes(4, "big") + (1).to_bytes(4, "big")
    ping = (8).to_bytes(3, "big") + b"\x06\x01" + (0).to_bytes(4, "big") + b"12345678"
    settings = (0).to_bytes(3, "big") + b"\x04\x00" + (0).to_bytes(4, "big")
    priority = (5).to_bytes(3, "big") + b"\x02\0" + (99).to_bytes(4, "big") + bytes(4) + b"\x10"
    return Attack(connections=[[greeting, frame * 40_000] for frame in (update, ping, settings, priority)])


def _resets() -> Attack:
    connection = _connection()
    greeting = connection.data_to_send()
    for number in range(1, 8001, 2):
        connection.send_headers(number, _headers("/log.v1.Log/ConsumeStream"))
        connection.reset_stream(number)
    return Attack(connections=[[greeting, connection.data_to_send()]])


def _many_headers() -> Attack:
    extra = [(f"x-{number}", "v") for number in range(200)]
    found = []
    connection = _connection()
    greeting = connection.data_to_send()
    for number in range(1, 201, 2):
        connection.send_headers(number, [*_headers("/log.v1.Log/GetServers"), *extra], end_stream=True)
    found.append([greeting, connection.data_to_send()])
    return Attack(connections=found)


def _empty_data() -> Attack:
    head = request("/log.v1.Log/ProduceStream", b"", end=False)
    empty = (0).to_bytes(3, "big") + b"\0\0" + (1).to_bytes(4, "big")
    return Attack(connections=[[*head, empty * 40_000]])


def _asked_about_many() -> Attack:
    meta = encode_tags({"region": "north", "role": "worker"})
    ask = [
        request(f"/log.v1.{name}", b"")
        for name in ("Cluster/GetMembers", "Cluster/GetStatus", "Cluster/GetInfo", "Log/GetServers", "Log/WatchServers")
    ]
    return Attack(streams=[(plain_state(8000, meta),)], connections=ask, requests=["/metrics"])


def _asked_of_many() -> Attack:
    """Queries of this node's own that are to find out whom of 8,000 members they are for."""
    meta = encode_tags({"role": "a" * 400})
    query = log_v1.QueryRequest(name="q", tags={"role": "(a|a)*b" + "a?" * 55}, timeout_seconds=2.0)
    asking = [request("/log.v1.Cluster/Query", bytes(query)) for _ in range(8)]
    return Attack(connections=asking, streams=[(plain_state(8000, meta),)], wait_seconds=3.0)


def _watched_events() -> Attack:
    watching = [request("/log.v1.Cluster/WatchEvents", b"") for _ in range(8)]
    return evolve(_many_events(), streams=[(plain_state(8000),)], watchers=watching, wait_seconds=2.0)


def _many_peers() -> Attack:
    meta = encode_tags({"rpc_addr": "127.0.0.1:1", "directory_id": "00" * 8})
    return Attack(streams=[(plain_state(2000, meta),)], wait_seconds=5.0)


# -- DNS ---------------------------------------------------------------------------------------------------------------


def named_members(count: int) -> Attack:
    """Members whose names and tags are as many names in DNS as may be, their hosts names as well."""
    states = tuple(
        attrs.evolve(
            state,
            meta=encode_tags(
                {
                    "cluster_name": "proglog",
                    "rpc_addr": f"h{number}.invalid:1" if number % 4 == 0 else f"127.1.{number % 250}.1:9",
                    **{f"t{tag}": f"{number % 500}.a.b.c.d" for tag in range(20)},
                }
            ),
        )
        for number, state in enumerate(node_states(count))
    )
    return Attack(streams=[(bytes(complete(encode_stream_steps(PushPull(states), compress=False))),)])


def _question(name: str, kind: str) -> bytes:
    return bytes(DNSRecord.question(name, kind).pack())


def chained_names(count: int = 580) -> bytes:
    """A question with a record whose content is a chain of names, each of which refers to the one before it."""
    head = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 2) + b"\0\0\1\0\1"
    first = len(head) + 11
    places = [first, *(first + 1 + 2 * number for number in range(count))]
    chain = b"\0" + b"".join(struct.pack("!H", 0xC000 | place) for place in places[:-1])
    record = b"\0\0\1\0\1\0\0\0\0" + struct.pack("!H", len(chain)) + chain
    return head + record + struct.pack("!H", 0xC000 | places[-1]) + b"\0\1\0\1\0\0\0\0\0\0"


def _many_questions() -> Attack:
    kinds = [_question("proglog.proglog", kind) for kind in ("A", "SRV", "ANY")]
    framed = b"".join(len(each).to_bytes(2, "big") + each for each in kinds)
    members = named_members(2000)
    return Attack(streams=members.streams, questions=kinds * 2000, dns_streams=[(framed * 300,)] * 64)


def _odd_questions() -> Attack:
    head = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0)
    long_name = head + b"\1a" * 600 + b"\0\0\1\0\1"
    pointers = struct.pack("!HHHHHH", 1, 0, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF) + b"\xc0\x0c" * 600
    odd = [chained_names(), long_name, pointers, b"\xff" * 65_000, _question("a" * 63 + ".proglog.proglog", "A")]
    framed = [(len(each).to_bytes(2, "big") + each,) for each in odd]
    return Attack(questions=odd * 500, dns_streams=framed * 20)


def agent_request(command: str, body: object = None) -> bytes:
    """Return a request of a client of the agent's RPC."""
    header: bytes = msgpack.packb({"Command": command, "Seq": 1}, use_bin_type=False)
    return header if body is None else header + msgpack.packb(body, use_bin_type=False)


def _costly_member_filters() -> Attack:
    """The expressions that take RE2 longest to compile and match, as many as may be, many times."""
    costly = ("(" + "a?" * 50 + "a{100}){10}", r"\pL" * 42, r"(?i)\pL{20}", "(.{10}){50}", ".{1000}")
    one = {"Name": costly[0], "Status": costly[1], "Tags": {f"t{n}": costly[n % 5] for n in range(32)}}
    return Attack(agent_requests=[[agent_request("members-filtered", one) * 20]] * 4)


def _many_agent_requests() -> Attack:
    """What is asked in few bytes and answered in many, and streams as many as may be."""
    streams = b"".join(
        msgpack.packb({"Command": "stream", "Seq": seq}) + msgpack.packb({"Type": "*"}) for seq in range(2, 80)
    )
    many = (agent_request("stats") + agent_request("members")) * 5000
    return Attack(agent_requests=[[streams + many]] * 8)


def _large_agent_requests() -> Attack:
    """Bodies with as many elements as may be."""
    names = [f"n{number}" for number in range(4000)]
    join = agent_request("join", {"Existing": names})
    query = agent_request("query", {"Name": "q", "FilterNodes": names, "Timeout": 10**9})
    tags = agent_request("tags", {"Tags": dict.fromkeys(names[:2000], "x")})
    return Attack(agent_requests=[[(join + query + tags) * 50]] * 4)


def _all_members_asked_for() -> Attack:
    """Many members, listed for many clients at once."""
    return Attack(streams=[_last_by_itself(plain_state(8000))], agent_requests=[[agent_request("members") * 20]] * 16)


CASES: tuple[Case, ...] = (
    Case(
        "a million empty states, the last byte by itself",
        lambda: Attack(streams=[_last_by_itself(empty_states(1_048_576))]),
    ),
    Case("as many empty states as may be", lambda: Attack(streams=[_last_by_itself(empty_states(16_384))])),
    Case("as many states as may be", lambda: Attack(streams=[_last_by_itself(plain_state(16_384, b"m" * 250))])),
    Case("states with names of full length", lambda: Attack(streams=[(long_names(),), (long_names(),)])),
    Case("128 streams of 2,000 states at once", lambda: Attack(streams=[(plain_state(2000),)] * 128, at_once=128)),
    Case("a million status times", lambda: _times(1_000_000)),
    Case("as many status times as may be", lambda: _times(16_384)),
    Case("as many names of the left as may be", lambda: _left(16_384)),
    Case("32 events at each of 1,000 times", lambda: Attack(streams=[(events_state(1000, 32, 0),)] * 2)),
    Case("many events at one time", lambda: Attack(streams=[(events_state(8, 800, 0),)] * 2)),
    Case("512 events of 8.9 kB, and three exchanges", _remembered_events),
    Case("4 MiB without a pattern, compressed", _no_pattern),
    Case("fields of the wrong kind, of many MiB", _wrong_kinds),
    Case("19 MiB of garbage for 32 keys", _sealed_garbage),
    Case("8,000 members that die together", _die_together),
    Case("2,000 peers that are none", _many_peers),
    Case("queries with 4,000 filters", lambda: _matching_filters(4000)),
    Case("queries with as many filters as may be", lambda: _matching_filters(16)),
    Case("queries with many names in filters", _name_filters),
    Case("queries with costly expressions", _costly_expressions),
    Case("16,320 pings in 64 packets", _many_pings),
    Case("members with many tags", _many_members),
    Case("packets of 60 kB without a pattern", _packet_without_pattern),
    Case("queries that want many relays", _relays),
    Case("20,400 events in packets", _many_events),
    Case("20,400 events, and members, that are watched", _watched_events),
    Case("20,400 queries of users", _user_queries),
    Case("256 events that go on by streams", _large_events),
    Case("requests with many fields", _many_fields),
    Case("small messages with many fields", _many_small_messages),
    Case("batches with millions of elements", _many_elements),
    Case("a consumer's position of 30,000 origins", _position),
    Case("pullers' positions of 3,000 origins", _positions),
    Case("pull requests with as much as may be", _full_pulls),
    Case("records with many headers", _many_headers_of_a_record),
    Case("40,000 small HTTP/2 frames at once", _small_frames),
    Case("4,000 streams that are reset at once", _resets),
    Case("100 requests of 200 headers at once", _many_headers),
    Case("40,000 empty DATA frames", _empty_data),
    Case("questions about 8,000 members", _asked_about_many),
    Case("DNS: names of 2,000 members", lambda: named_members(2000)),
    Case("DNS: many questions about 2,000 members", _many_questions),
    Case("DNS: questions that are none, or odd", _odd_questions),
    Case("agent RPC: costly expressions", _costly_member_filters),
    Case("agent RPC: 80,000 requests at once", _many_agent_requests),
    Case("agent RPC: bodies with many elements", _large_agent_requests),
    Case("agent RPC: 8,000 members for 16 clients", _all_members_asked_for),
    Case("questions to 8,000 members with a costly expression", _asked_of_many),
)


def long_names() -> bytes:
    """A push/pull of members with names of full length."""
    states = tuple(
        NodeState(
            name=f"{number:0500}", addr=_address(number), port=9, meta=b"m" * 500, incarnation=1,
            state=NodeStateType.ALIVE, vsn=VERSION,
        )
        for number in range(16_000)
    )  # fmt: skip
    return bytes(complete(encode_stream_steps(PushPull(states), compress=False)))
