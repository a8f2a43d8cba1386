"""What is fuzzed: each target takes any bytes, and fails if anything comes out but the errors that are documented.

Every target looks, now and then or each time, at what is left behind: memory that is held, tasks that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import betterproto2
from attrs import define, field
from dnslib import DNSRecord
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError

from fuzz import agent_requests
from fuzz.pulls import Pulls
from fuzz.seeds import PREFACE, SALT
from fuzz.strict import Strict
from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.dns.answer import MAX_PACKET_BYTES, MAX_STREAM_BYTES
from proglog_trio.dns.counters import DnsCounters
from proglog_trio.dns.listing import list_members
from proglog_trio.dns.responder import Responder
from proglog_trio.errors import BatchRefused, FormatError, PositionError
from proglog_trio.log.batch import Batch
from proglog_trio.log.format.envelope import Envelope, find_envelope, read_unchecked
from proglog_trio.log.format.frame import decode_frame, iterate_frames
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import check_payload, payload_crc, unpack_records
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.membership import Member, MemberStatus
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.serf import Serf
from proglog_trio.membership.swim.broadcasts import MAX_BROADCASTS
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.encryption import encrypt
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import PushPull, UserMessage
from proglog_trio.membership.wire.packet import decode_packet_steps
from proglog_trio.membership.wire.stream import StreamLimits
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.stream_io import receive_available
from proglog_trio.rpc.server.authorization import Gate
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.rpc.server.server import ServerConfig, ServerProtocol, _Server
from proglog_trio.steps import complete

DNS_ZONE = (b"blue", b"proglog")
KEYRING = Keyring((b"k" * 16,))
HERE, THERE = Endpoint.of("10.0.0.1", 7946), Endpoint.of("10.0.0.2", 7946)
CASES_PER_CORE = 500
MAX_EFFECTS = 10_000
MAX_REST_BYTES = 64 * 1024
TURNS = 200

Target = Callable[[bytes], None]


class Broken(AssertionError):
    """Something is left behind, or a bound does not hold."""


@define(eq=False)
class Gossip:
    """Packets and streams, given to a core as a node would."""

    _core: Serf | None = None
    _cases: int = 0

    def _fresh(self) -> Serf:
        if self._core is None or self._cases % CASES_PER_CORE == 0:
            rng = random.Random(self._cases)
            self._core = Serf("me", HERE, {}, GossipProfile(), rng, _ignore, now=0.0, on_key_query=_ignore)
            self._core.start()
        self._cases += 1
        return self._core

    def _look(self, core: Serf) -> None:
        core.swim.advance(core.swim.now + 0.05)
        if len(core.swim.effects) > MAX_EFFECTS:
            raise Broken(f"{len(core.swim.effects)} effects of one packet")
        core.swim.effects.clear()
        if any(len(queue) > MAX_BROADCASTS for queue in core.swim.outbox.queues):
            raise Broken("a queue of broadcasts has no bound")

    def packet(self, data: bytes) -> None:
        """Take one packet, as the first byte says: compressed or not, encrypted or not, where both are taken or not."""
        core = self._fresh()
        mode, data = data[:1], data[1:]
        compressed, encrypted, unverified = (bool(mode and mode[0] & bit) for bit in (1, 2, 4))
        if compressed:
            data = compressed_layer(data)
        if encrypted:
            data = encrypt(data, keyring=KEYRING, associated=b"", nonce=bytes(12))
        try:
            keyring = KEYRING if encrypted or unverified else None
            decoded = complete(decode_packet_steps(data, keyring=keyring, verify=not unverified))
        except DecodingError:
            return
        core.swim.receive(decoded.messages, THERE)
        self._look(core)

    def stream(self, data: bytes) -> None:
        """Take one stream, in pieces whose size the first byte says."""
        core = self._fresh()
        mode, data = data[:1], data[1:]
        number = mode[0] if mode else 0
        if number & 1:
            data = compressed_layer(data)
        if number & 2:
            header = b"\x0a" + (len(data) + 29).to_bytes(4, "big")
            data = header + encrypt(data, keyring=KEYRING, associated=header, nonce=bytes(12))
        limits = StreamLimits()
        # By a node that takes both, where it is not encrypted.
        decoder = StreamDecoder(keyring=KEYRING, verify=bool(number & 2), limits=limits)
        step = (number >> 2) or len(data) or 1
        message = None
        try:
            for start in range(0, len(data), step):
                message = decoder.feed(data[start : start + step])
                if message is not None:
                    break
            else:
                decoder.end()
        except DecodingError:
            message = None
        if isinstance(message, PushPull):
            with contextlib.suppress(DecodingError):
                complete(core.push_pull.merge_steps(message))
        elif isinstance(message, UserMessage):
            core.receive(message.payload)
        self._look(core)


def _ignore(_event: object) -> None:
    """Take news, and do nothing."""


def frame(data: bytes) -> None:
    """Read bytes as whatever of the log the first byte says."""
    if not data:
        return
    mode, data = data[0], data[1:]
    with contextlib.suppress(FormatError, PositionError, BatchRefused):
        match mode % 8:
            case 0:
                for each in iterate_frames(data):
                    unpack_records(each.payload)
            case 1:
                Envelope.decode(data, 0, SALT)
            case 2:
                unpack_records(data)
            case 3:
                Batch(data, max(1, mode), payload_crc(data)).check(1 << 20)
            case 4:
                decoded = Position.decode(data)
                if Position.decode(decoded.encode()) != decoded:
                    raise Broken("a position does not survive encoding")
            case 5:
                SegmentHeader.decode(data)
            case 6:
                GapMarker.of_frame(decode_frame(data))
            case _:
                find_envelope(data, 0, SALT)
                read_unchecked(data, 0)
                check_payload(data, mode)


@define(eq=False)
class Questions:
    """Questions of DNS, by packet or by stream as the first byte says, to a server that tells of some nodes."""

    _responder: Responder = field(factory=lambda: responder())

    def question(self, data: bytes) -> None:
        """Answer one; what comes out is no question, and has its bound."""
        by_stream, message = bool(data[:1] and data[0] & 1), data[1:]
        answer = self._responder.answer(message, by_stream=by_stream)
        if answer is None:
            return
        if len(answer) > (MAX_STREAM_BYTES if by_stream else MAX_PACKET_BYTES):
            raise Broken(f"an answer of {len(answer)} bytes")
        if answer[:2] != message[:2]:
            raise Broken("an answer to another question")
        DNSRecord.parse(answer)
        if self._responder.answer(answer, by_stream=by_stream) is not None:
            raise Broken("an answer is answered")


def responder() -> Responder:
    """A responder that tells of as many nodes as have no room in a packet, some of them by longer names."""
    like = {"cluster_name": "blue"}
    members = {
        name: Member(name, "10.0.0.1", 1, {**like, "rpc_addr": address, "role": f"r{number % 3}.x"}, MemberStatus.ALIVE)
        for number in range(200)
        for name, address in (
            (f"n{number}", f"10.0.{number}.1:1"),
            (f"six.{number}.example", f"[2001:db8::{number}]:1"),
        )
    }
    listing = complete(list_members(sorted(members), members.get, like=like, zone=DNS_ZONE, found={}, serial=1))
    return Responder(DNS_ZONE, 1, [IPv4Address("127.0.0.1")], random.Random(1), DnsCounters(), listing)


def message_classes() -> list[type[betterproto2.Message]]:
    """Every message of the contract, those of pulls between nodes included where there are any."""
    found = [
        member
        for _, member in sorted(inspect.getmembers(log_v1, inspect.isclass))
        if issubclass(member, betterproto2.Message) and member is not betterproto2.Message
    ]
    if not found:
        raise Broken("there is no message")
    return found


@define(eq=False)
class Messages:
    """Bytes read as a message of the contract, which the first byte chooses."""

    _classes: list[type[betterproto2.Message]] = field(factory=message_classes)
    _codec: MessageCodec = field(factory=lambda: MessageCodec(MAX_REST_BYTES))

    def message(self, data: bytes) -> None:
        """Read one."""
        if not data:
            return
        kind = self._classes[data[0] % len(self._classes)]
        with contextlib.suppress(GRPCError):
            self._codec.decode(data[1:], kind)


class _Service:
    """Takes whatever comes on the methods of the Log service, as the real one does, and answers nothing."""

    _REQUESTS = (
        ("Produce", log_v1.ProduceRequest),
        ("ProduceStream", log_v1.ProduceRequest),
        ("ProduceBatches", log_v1.ProduceBatchRequest),
        ("Consume", log_v1.ConsumeRequest),
        ("ConsumeStream", log_v1.ConsumeRequest),
        ("ConsumeBatches", log_v1.ConsumeBatchesRequest),
        ("GetServers", log_v1.GetServersRequest),
        ("WatchServers", log_v1.WatchServersRequest),
    )

    def __mapping__(self) -> dict[str, Handler]:
        kind = Cardinality.STREAM_STREAM
        return {
            f"/log.v1.Log/{name}": Handler(self._take, kind, request, log_v1.ProduceResponse)
            for name, request in self._REQUESTS
        }

    async def _take(self, stream: Any) -> None:  # noqa: ANN401 - grpclib's
        while await receive_available(stream, 1 << 16):
            pass


class _Transport(asyncio.Transport):
    """A connection whose other end reads everything and says nothing but what it is given."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.closed = False

    def write(self, data: Any) -> None:  # noqa: ANN401 - bytes of any kind
        """Drop it."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """Nothing is sent but what is given by hand."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Take note."""
        self.closed = True

    abort = close


@define(eq=False)
class Connections:
    """Bytes that a client sends on a connection; the first says in how large pieces, and whether there is a gate."""

    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop)
    _servers: list[_Server] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop.set_exception_handler(_fail)
        asyncio.set_event_loop(self._loop)
        self._servers = [
            _Server([_Service()], ServerConfig(), ServerCounters(), gate, Strict()) for gate in (None, Gate(_Nobody()))
        ]

    def connection(self, data: bytes) -> None:
        """Take in all that a client sends, then lose the connection; nothing may be left."""
        if not data:
            return
        mode, data = data[0], PREFACE + data[1:]
        self._loop.run_until_complete(self._converse(self._servers[mode & 1], data, (mode >> 1) or len(data)))

    async def _converse(self, server: _Server, data: bytes, step: int) -> None:
        transport = _Transport()
        protocol = ServerProtocol(server)
        protocol.connection_made(transport)
        for start in range(0, len(data), step):
            if transport.closed:
                break
            protocol.data_received(data[start : start + step])
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        me = asyncio.current_task()
        for _ in range(TURNS):
            if asyncio.all_tasks() == {me}:
                break
            await asyncio.sleep(0)
        else:
            raise Broken(f"tasks are left: {asyncio.all_tasks()}")
        if server._protocols:  # noqa: SLF001 - what is looked at
            raise Broken("a connection is left")


class _Nobody:
    def allows(self, subject: str, action: object) -> bool:
        """Nobody may do anything."""
        del subject, action
        return False


def _fail(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    raise Broken(str(context)) from context.get("exception")


@contextlib.contextmanager
def targets() -> Iterator[dict[str, Target]]:
    """Give the targets by name."""
    gossip = Gossip()
    connections = Connections()
    yield {
        "packets": gossip.packet,
        "streams": gossip.stream,
        "frames": frame,
        "messages": Messages().message,
        "questions": Questions().question,
        "pulls": Pulls().pull,
        "connections": connections.connection,
        "agent-requests": agent_requests.requests,
    }
