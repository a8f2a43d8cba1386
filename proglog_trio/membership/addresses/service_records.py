"""SRV records (RFC 2782), which the system's own look-up does not give: asked for here, and read with dnspython.

dnspython's resolver reads whatever comes on the loop, and a large answer takes it a second. So it only makes questions
and reads answers, in a thread, and no answer with more records than a name may reasonably have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.host_names import encoded_name, ip_literal

if TYPE_CHECKING:
    from dns.message import QueryMessage

MAX_TARGETS = 64
"""Hosts of one name; of more, those that its records prefer."""
MAX_ADDRESSES = 16
"""Addresses of one host, of each family."""
MAX_ANSWER_BYTES = 8192
MAX_RECORDS = 128
"""In each section of an answer, which is told in its first bytes."""
MAX_SERVERS = 3
"""Of the system's name servers those that are asked, one after the other; its own look-up asks as many."""
ROUNDS = 2
ASK_SECONDS = 8.0
"""For one question, all name servers and repetitions together."""
SERVER_SECONDS = 2.0
"""For one of them."""
_UDP_BYTES = 1232
"""That name servers are told to put into a packet (EDNS); what has more comes by a stream."""
_HEADER_BYTES = 12
_TRUNCATED = 0x02


class RecordsNotHad(Exception):
    """There are no records to use. The message says why."""


class _NoAnswer(Exception):
    """A name server says nothing that can be used; another may. The message says why."""


@frozen
class _Question:
    message: QueryMessage
    wire: bytes
    servers: Sequence[Address]


@frozen
class ServiceRecords:
    """Asks name servers.

    Attributes:
        name_servers: numeric hosts and ports; none: those of the system, as they are configured when they are asked.
    """

    name_servers: tuple[Address, ...] = ()

    async def targets(self, name: str) -> tuple[Address, ...]:
        """Return the hosts and ports of a service, those first that its records prefer.

        Raises:
            RecordsNotHad: there are none, or no name server says so.
        """
        records = sorted(await self._ask(name, "SRV"), key=lambda record: (record.priority, -record.weight))
        targets = [
            Address(record.target.to_text(omit_final_dot=True), record.port)
            for record in records
            # The root as the only target: the service is decidedly not there (RFC 2782).
            if len(record.target) > 1 and record.port
        ]
        if not targets:
            raise RecordsNotHad("its SRV record says that the service is not there")
        return tuple(dict.fromkeys(targets))[:MAX_TARGETS]

    async def hosts(self, name: str) -> tuple[str, ...]:
        """Return the numeric addresses of a host, IPv4 first.

        Raises:
            RecordsNotHad: it has none, or no name server says so.
        """
        found: dict[str, list[str]] = {}
        problems: list[str] = []

        async def ask(kind: str) -> None:
            try:
                found[kind] = [str(record.address) for record in await self._ask(name, kind)][:MAX_ADDRESSES]
            except RecordsNotHad as error:
                problems.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "A")
            nursery.start_soon(ask, "AAAA")
        if not found:
            raise RecordsNotHad(problems[0])
        return (*found.get("A", ()), *found.get("AAAA", ()))

    async def _ask(self, name: str, kind: str) -> list[Any]:
        """Return the records of a kind, as dnspython's classes."""
        question = await trio.to_thread.run_sync(self._question, name, kind)
        problems: dict[str, None] = {}
        with trio.move_on_after(ASK_SECONDS):
            for _ in range(ROUNDS):
                for server in question.servers:
                    try:
                        with trio.fail_after(SERVER_SECONDS):
                            answer = await _answer(question.wire, server)
                        return await trio.to_thread.run_sync(_records, question.message, answer, name, kind)
                    except trio.TooSlowError:
                        problems[f"the name server {server} does not answer"] = None
                    except (_NoAnswer, OSError) as error:
                        problems[f"the name server {server}: {error}"] = None
        raise RecordsNotHad(f"the {kind} records of {name} cannot be had: {'; '.join(problems) or 'no answer in time'}")

    def _question(self, name: str, kind: str) -> _Question:
        # In a thread: the library takes some 0.1 s to load, and the system's configuration is a file.
        import dns.exception
        import dns.message
        import dns.resolver

        try:
            message = dns.message.make_query(encoded_name(name), kind, use_edns=0, payload=_UDP_BYTES)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise RecordsNotHad(f"{name} is no name that can be asked for: {error}") from None
        servers: Sequence[Address] = self.name_servers
        if not servers:
            try:
                system = dns.resolver.Resolver()
            except dns.resolver.NoResolverConfiguration as error:
                raise RecordsNotHad(f"the system has no name server: {error}") from None
            hosts = [host for host in map(str, system.nameservers) if ip_literal(host)]
            servers = [Address(host, system.port) for host in hosts[:MAX_SERVERS]]
        return _Question(message, message.to_wire(), servers)


async def _answer(question: bytes, server: Address) -> bytes:
    """Return what a name server answers, in as many bytes as are read; raises _NoAnswer, OSError."""
    family = trio.socket.AF_INET6 if ":" in server.host else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as udp:
        # Connected: it takes packets of the name server alone.
        await udp.connect((server.host, server.port))
        await udp.send(question)
        while True:
            answer = await udp.recv(65_535)
            if answer[:2] == question[:2] and len(answer) >= _HEADER_BYTES:
                break
    if answer[2] & _TRUNCATED:
        stream = await trio.open_tcp_stream(server.host, server.port)
        async with stream:
            await stream.send_all(len(question).to_bytes(2, "big") + question)
            size = int.from_bytes(await _exactly(stream, 2), "big")
            if size > MAX_ANSWER_BYTES:
                raise _NoAnswer(f"its answer has {size} bytes, more than {MAX_ANSWER_BYTES}")
            answer = await _exactly(stream, size)
    if len(answer) > MAX_ANSWER_BYTES:
        raise _NoAnswer(f"its answer has {len(answer)} bytes, more than {MAX_ANSWER_BYTES}")
    counts = [int.from_bytes(answer[place : place + 2], "big") for place in range(4, _HEADER_BYTES, 2)]
    if max(counts) > MAX_RECORDS:
        raise _NoAnswer(f"its answer has {max(counts)} records, more than {MAX_RECORDS}")
    return answer


async def _exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise _NoAnswer("its answer ended early")
        data += more
    return bytes(data)


def _records(question: QueryMessage, answer: bytes, name: str, kind: str) -> list[Any]:
    """Return the records in an answer; raises RecordsNotHad: there are none, and _NoAnswer: it is of no use."""
    import dns.exception
    import dns.message
    import dns.rcode

    try:
        message = dns.message.from_wire(answer)
        if not isinstance(message, dns.message.QueryMessage) or not question.is_response(message):
            raise _NoAnswer("it answers another question")
        rcode = message.rcode()
        if rcode == dns.rcode.NXDOMAIN:
            raise RecordsNotHad(f"there is no name {name}")
        if rcode != dns.rcode.NOERROR:
            raise _NoAnswer(f"it answers {dns.rcode.to_text(rcode)}")
        found = message.resolve_chaining().answer
    except (dns.exception.DNSException, ValueError) as error:
        raise _NoAnswer(f"its answer cannot be read: {str(error) or type(error).__name__}") from None
    if found is None:
        raise RecordsNotHad(f"{name} has no {kind} records")
    return list(found)
