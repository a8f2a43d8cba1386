"""The server under Trio: questions by packet and by stream."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import structlog
import trio
from attrs import define, field, frozen

from proglog_trio.accepting import accept_streams
from proglog_trio.address import Address
from proglog_trio.dns.counters import DnsCounters
from proglog_trio.dns.directory import Directory, Members
from proglog_trio.dns.host_lookups import Lookup
from proglog_trio.dns.listing import IpAddress, Listing
from proglog_trio.dns.names import Labels, zone_of, zone_problem
from proglog_trio.dns.question import MAX_QUESTION_BYTES
from proglog_trio.dns.responder import Responder
from proglog_trio.dns.sockets import DnsSockets, Sender, bind_both
from proglog_trio.host_names import ip_literal
from proglog_trio.internal_errors import InternalErrors, Where

MAX_CONNECTIONS = 64
"""For one more, the oldest is ended: a question needs milliseconds."""
MAX_QUESTIONS = 1000
"""Of one connection; clients make another then."""
QUESTION_SECONDS = 10.0
"""For a question to arrive, from the one before; so long an idle connection is kept (RFC 7766, section 6.2.3)."""
ANSWER_SECONDS = 10.0
"""For an answer to be taken."""
_LENGTH_BYTES = 2

_logger = structlog.get_logger(__name__)


@frozen(kw_only=True)
class DnsConfig:
    """What is served, and where.

    Attributes:
        address: where; port 0: one that is free for packets and streams.
        cluster_name: the zone is this below `proglog`.
        ttl: for how long an answer may be kept, in seconds.
        like: tags that members must have to be told of, with these values.
        own_host: where others reach this machine, if the address stands for all of it: for the zone's name server.
    """

    address: Address
    cluster_name: str
    ttl: int
    like: Mapping[str, str] = field(factory=dict)
    own_host: str | None = None


async def serve_dns(
    config: DnsConfig,
    membership: Members,
    errors: InternalErrors,
    counters: DnsCounters,
    *,
    joined: trio.Event,
    rng: random.Random | None = None,
    lookup: Lookup | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer questions about a cluster's nodes until cancelled.

    Args:
        config: what is served.
        membership: whose members the nodes are.
        errors: where unforeseen errors are counted.
        counters: what came of questions.
        joined: until it is set, questions wait: who asked before would be told that there is nobody, and believe it.
        rng: chooses among nodes; None: one that the system seeds.
        lookup: asks for the addresses of hosts; None: asks the system.
        task_status: is given the bound address once it is listened at.

    Raises:
        AddressUnavailable: the address cannot be listened at, or another process does.
        ValueError: the cluster's name cannot stand in a domain name; see zone_problem.
    """
    zone = zone_of(config.cluster_name)
    if zone is None:
        raise ValueError(f"{config.cluster_name!r} {zone_problem(config.cluster_name)}")
    sockets = await bind_both(config.address)
    own_addresses = _own_addresses(sockets, config.own_host)
    responder = Responder(zone, config.ttl, own_addresses, rng or random.Random(), counters)
    server = _Server(sockets, responder, errors, counters)
    directory = Directory(membership, config.like, zone, errors, server.publish, lookup)
    try:
        task_status.started(sockets.address)
        await joined.wait()
        async with trio.open_nursery() as nursery:
            await nursery.start(directory.run)
            _logger.info("serving DNS", dns_addr=str(sockets.address), zone=_text(zone))
            nursery.start_soon(server.serve_packets)
            nursery.start_soon(accept_streams, sockets.streams, server.serve_stream, errors, Where.DNS_STREAM)
    finally:
        sockets.close()


def _own_addresses(sockets: DnsSockets, own_host: str | None) -> Sequence[IpAddress]:
    candidates = (sockets.bound_host, own_host or "")
    found = (literal for host in candidates if (literal := ip_literal(host)) is not None)
    return [address for address in found if not address.is_unspecified][:1]


def _text(labels: Labels) -> str:
    return b".".join(labels).decode("ascii")


@define(eq=False)
class _Server:
    """Takes questions and sends answers."""

    sockets: DnsSockets
    responder: Responder
    errors: InternalErrors
    counters: DnsCounters
    # What ends each connection, in the order in which they came.
    _served: dict[trio.CancelScope, None] = field(factory=dict)
    _turn: trio.Lock = field(factory=trio.Lock)

    def publish(self, listing: Listing) -> None:
        """Answer from a new listing."""
        self.responder.listing = listing
        self.counters.nodes = listing.nodes
        self.counters.nodes_without_address = listing.nodes_without_address
        self.counters.nodes_without_name = listing.nodes_without_name

    async def serve_packets(self) -> None:
        """Answer packets, one after the other; others have a turn in between."""
        turns = self.errors.turns(Where.DNS_PACKET)
        while True:
            async with turns:
                message, sender = await self.sockets.receive(MAX_QUESTION_BYTES + 1)
                answer = None
                # A packet that makes a mistake show slows no other down, as the turns of a loop would.
                with self.errors.boundary(Where.DNS_PACKET):
                    answer = self.responder.answer(message, by_stream=False)
                if answer is not None:
                    await self._send(answer, sender)

    async def _send(self, answer: bytes, sender: Sender) -> None:
        with trio.move_on_after(ANSWER_SECONDS) as scope:
            try:
                await self.sockets.send(answer, sender)
            except OSError as error:
                # No way there, or a port that nothing can be sent to.
                self.counters.unsent += 1
                _logger.debug("an answer was not sent", reason=str(error))
        self.counters.unsent += scope.cancelled_caught

    async def serve_stream(self, stream: trio.SocketStream) -> None:
        """Answer the questions of one connection."""
        self.counters.connections += 1
        while len(self._served) >= MAX_CONNECTIONS:
            oldest = next(iter(self._served))
            # Here already, so that two streams that are accepted in one turn end two others.
            del self._served[oldest]
            oldest.cancel()
        try:
            with trio.CancelScope() as scope:
                self._served[scope] = None
                await self._converse(stream)
            self.counters.connections_ended += scope.cancelled_caught
        except trio.BrokenResourceError as error:
            _logger.debug("a connection for DNS ended early", reason=str(error))
        finally:
            self._served.pop(scope, None)

    async def _converse(self, stream: trio.SocketStream) -> None:
        for _ in range(MAX_QUESTIONS):
            message = b""
            with trio.move_on_after(QUESTION_SECONDS) as scope:
                message = await _receive_message(stream)
            answer = None
            if message:
                # One at a time: whatever many streams ask for at once, others have a turn after each answer.
                async with self._turn:
                    answer = self.responder.answer(message, by_stream=True)
            if answer is None:
                # Nothing came, or nothing that is answered: then what follows would be no better.
                self.counters.connections_ended += scope.cancelled_caught
                return
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                await stream.send_all(len(answer).to_bytes(_LENGTH_BYTES, "big") + answer)
            self.counters.connections_ended += scope.cancelled_caught
            if scope.cancelled_caught or len(message) > MAX_QUESTION_BYTES:
                # Where the next question begins is not known: of this one, only the beginning was read.
                return


async def _receive_message(stream: trio.SocketStream) -> bytes:
    """Return a message, of one that is too long its beginning; nothing: the stream has ended, or its length is 0."""
    length = int.from_bytes(await _receive(stream, _LENGTH_BYTES), "big")
    return await _receive(stream, min(length, MAX_QUESTION_BYTES + 1))


async def _receive(stream: trio.SocketStream, count: int) -> bytes:
    """Return so many bytes; nothing: the stream ended before."""
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        if not data:
            return b""
        received += data
    return bytes(received)
