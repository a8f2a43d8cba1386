"""What fuzzing begins with: valid input of every kind, so that the fuzzer does not have to invent the formats."""

from __future__ import annotations

from collections.abc import Iterator

import h2.config
import h2.connection
from dnslib import EDNS0, DNSRecord, EDNSOption

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.format.envelope import Envelope, EnvelopeKind, Salt
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import Record, pack_records, payload_crc
from proglog_trio.membership.serf.keys import KeyOperation, request_payload
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
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    SerfMessage,
    TagFilter,
    UserEvent,
    encode_serf,
)
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.stream import encode_stream_steps
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.steps import complete

ADDRESS = bytes((10, 0, 0, 2))
VERSION = bytes((1, 5, 2, 2, 5, 4))
SALT = Salt(b"saltseed")
ORIGIN = Origin(bytes(range(16)))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHODS = (
    "Produce", "Consume", "ConsumeStream", "ProduceStream", "ProduceBatches", "ConsumeBatches", "GetServers",
    "WatchServers",
)  # fmt: skip


def gossip_messages() -> list[Message]:
    """One message of each type, Serf's in memberlist's."""
    query = Query(
        ltime=3, id=4, addr=ADDRESS, port=7946, source_node="b", filters=(TagFilter(tag="role", expr="^web"),), flags=1,
        relay_factor=1, timeout=10**9, name=KeyOperation.INSTALL.query_name,
        payload=request_payload(KeyOperation.INSTALL, bytes(32)),
    )  # fmt: skip
    relay = RelayHeader(dest_addr=RelayAddress(ip=ADDRESS, port=7946, zone=""), dest_name="b")
    serf: list[SerfMessage] = [
        Join(ltime=2, node="b"),
        Leave(ltime=3, node="b", prune=False),
        UserEvent(ltime=3, name="deploy", payload=b"1", cc=True),
        query,
        QueryResponse(ltime=3, id=4, from_node="b", flags=0, payload=b"x"),
        Relay(relay, encode_serf(Join(ltime=4, node="c"))),
    ]
    return [
        Ping(seq_no=1, node="me", source_addr=ADDRESS, source_port=7946, source_node="b"),
        IndirectPing(
            seq_no=2, target=ADDRESS, port=7946, node="b", nack=True, source_addr=ADDRESS, source_port=7946,
            source_node="b",
        ),
        Ack(seq_no=1, payload=b""),
        Nack(seq_no=1),
        Suspect(incarnation=1, node="b", from_node="c"),
        Alive(incarnation=1, node="b", addr=ADDRESS, port=7946, meta=b"\xff\x81\xa4role\xa3web", vsn=VERSION),
        Dead(incarnation=1, node="b", from_node="b"),
        *(UserMessage(encode_serf(message)) for message in serf),
    ]  # fmt: skip


def packets() -> Iterator[bytes]:
    """Packets; the first byte chooses the layers, see targets.py."""
    messages = gossip_messages()
    for message in messages:
        yield b"\0" + encode_packets([message], compress=False)[0]
    for mode in range(4):
        yield bytes((mode,)) + encode_packets(messages[:6], compress=mode > 1)[0]


def streams() -> Iterator[bytes]:
    """Streams; the first byte chooses the layers and the pieces."""
    state = SerfPushPull(
        ltime=5, status_ltimes={"b": 3, "c": 2}, left_members=("c",), event_ltime=2, events=(None,), query_ltime=2
    )
    node = NodeState(name="b", addr=ADDRESS, port=7946, meta=b"", incarnation=2, state=NodeStateType.ALIVE, vsn=VERSION)
    for mode in range(4):
        for message in (PushPull((node, node), encode_serf(state), join=True), Ping(seq_no=1, node="me"), PushPull()):
            yield bytes((mode,)) + bytes(complete(encode_stream_steps(message, compress=False)))
        yield bytes((mode,)) + bytes(
            complete(encode_stream_steps(UserMessage(encode_serf(Join(ltime=2, node="b"))), compress=False))
        )


def frames() -> Iterator[bytes]:
    """Frames, envelopes, payloads and positions; the first byte says which."""
    payload = pack_records([Record(b"value", b"key", {"name": b"content"}, 1_700_000_000_000), Record(b"x")])
    header = FrameHeader(ORIGIN, 7, 2, 99, len(payload), payload_crc(payload), 3, 4)
    frame = Frame(header, payload).encode()
    envelope = Envelope(EnvelopeKind.RECORDS, len(frame), 10, ORIGIN, 7, 2, 0).encode(SALT)
    gap = GapMarker(ORIGIN, 3, 9, 0, "retention").to_frame(100).encode()
    for mode in range(8):
        yield bytes((mode,)) + frame + frame
        yield bytes((mode,)) + envelope + frame
        yield bytes((mode,)) + payload
        yield bytes((mode,)) + gap
        yield bytes((mode,)) + Position.empty().advanced(ORIGIN, 0, 9).encode()


def messages() -> Iterator[bytes]:
    """Messages of the contract; the first byte chooses the class that they are read as."""
    payload = pack_records([Record(b"value")])
    written = (
        log_v1.ProduceRequest(record=log_v1.Record(value=b"v", key=b"k")),
        log_v1.ProduceBatchRequest(payload=payload, count=1, payload_crc=payload_crc(payload), producer_id=2),
        log_v1.JoinRequest(addresses=["10.0.0.1:8401"]),
        log_v1.InstallKeyRequest(key="AAAA"),
        log_v1.ChangeTagsRequest(set={"role": "web"}, delete=["zone"]),
        log_v1.EstimateRoundTripRequest(one="a", other="b"),
        log_v1.GetMembersResponse(members=[log_v1.Member(name="a", tags={"k": "v"})]),
    )
    for number in range(0, 64, 3):
        for message in written:
            yield bytes((number,)) + message.SerializeToString()


def questions() -> Iterator[bytes]:
    """Questions of DNS; the first byte says whether they come by packet or by stream."""
    options = EDNS0(udp_len=4096, opts=[EDNSOption(10, b"cookie12")])
    names = ("blue.proglog", "n7.node.blue.proglog", "_grpc._tcp.blue.proglog", "role-r1.x.blue.proglog", "a.example")
    for mode in (b"\0", b"\1"):
        for name in names:
            for kind in ("A", "AAAA", "SRV", "SOA", "ANY"):
                question = DNSRecord.question(name, kind)
                yield mode + bytes(question.pack())
                question.add_ar(options)
                yield mode + bytes(question.pack())


def connections() -> Iterator[bytes]:
    """What a client sends on a connection: the preface is added by the target."""
    for name in METHODS:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/log.v1.Log/{name}"),
            (":authority", "node"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        request = log_v1.ProduceRequest(record=log_v1.Record(value=b"v")).SerializeToString()
        for number in (1, 3):
            connection.send_headers(number, headers)
            connection.send_data(number, prefixed(request), end_stream=number == 3)
        connection.ping(b"12345678")
        connection.reset_stream(1)
        sent = connection.data_to_send().removeprefix(PREFACE)
        # With a gate and without: in pieces of three bytes, and all at once, where a reset comes with what it resets.
        for mode in (b"\x07", b"\x06", b"\x01", b"\x00"):
            yield mode + sent
