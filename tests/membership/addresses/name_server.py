"""A name server for tests, on loopback, by UDP and TCP."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.sockets import bind_both

MAX_UDP_BYTES = 512


@define(eq=False)
class NameServer:
    """Answers from a zone that the test may change.

    Attributes:
        address: where it is.
        records: by name and type, what stands behind them.
        asked: what it was asked, in order.
        rcode: what it answers to all, if anything.
        silent: it answers nothing.
        garbage: it answers that in place of anything.
    """

    address: Address
    records: dict[tuple[str, str], Sequence[str]] = field(factory=dict)
    asked: list[tuple[str, str]] = field(factory=list)
    rcode: dns.rcode.Rcode | None = None
    silent: bool = False
    garbage: bytes | None = None

    def answer(self, data: bytes, *, limit: int) -> bytes | None:
        """Return the answer to a question; None: there is none."""
        question = dns.message.from_wire(data)
        asked = question.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True).lower(), asked.rdtype.name
        self.asked.append((name, kind))
        if self.silent:
            return None
        if self.garbage is not None:
            return data[:2] + self.garbage
        response = dns.message.make_response(question)
        found = self.records.get((name, kind))
        if self.rcode is not None:
            response.set_rcode(self.rcode)
        elif found is not None:
            response.answer.append(dns.rrset.from_text_list(asked.name, 5, "IN", kind, found))
        elif not any(name == each for each, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        wire = response.to_wire(max_size=65_535)
        if len(wire) > limit:
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire(max_size=65_535)
        return wire

    async def serve_packets(self, udp: trio.socket.SocketType) -> None:
        """Answer packets, until cancelled."""
        while True:
            data, source = await udp.recvfrom(65_535)
            answer = self.answer(data, limit=MAX_UDP_BYTES)
            if answer is not None:
                await udp.sendto(answer, source)

    async def serve_stream(self, stream: trio.SocketStream) -> None:
        """Answer one question on a stream."""
        data = b""
        while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
            more = await stream.receive_some()
            if not more:
                return
            data += more
        answer = self.answer(data[2:], limit=65_535)
        if answer is not None:
            await stream.send_all(struct.pack("!H", len(answer)) + answer)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run a name server for the length of the block."""
    async with trio.open_nursery() as nursery:
        udp, listener, (host, port) = await bind_both(GossipConfig(name="name server"))
        server = NameServer(Address(host, port))
        with trio.socket.from_stdlib_socket(udp) as packets:
            nursery.start_soon(server.serve_packets, packets)
            nursery.start_soon(partial(trio.serve_listeners, server.serve_stream, [listener]))
            yield server
            nursery.cancel_scope.cancel()
