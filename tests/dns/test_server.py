from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any

import attrs
import dns.message
import pytest
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.dns import DnsConfig, DnsCounters, directory, serve_dns, server
from proglog_trio.dns.listing import IpAddress
from proglog_trio.dns.question import MAX_QUESTION_BYTES
from proglog_trio.dns.responder import Responder
from proglog_trio.dns.sockets import DnsSockets
from proglog_trio.errors import AddressInUse, AddressUnavailable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership import EventsMissed, Member, MemberEvent, MemberEventKind, MemberStatus
from tests.dns.support import LIKE, asked, code, contents, is_cut, member

SECONDS = 20
HERE = Address("127.0.0.1", 0)


@define(eq=False)
class Cluster:
    """Members that there are not, and news of them."""

    members: dict[str, Member] = field(factory=dict)
    subscriptions: int = 0
    changed: trio.Event = field(factory=trio.Event)
    _send: trio.MemorySendChannel[object] | None = None

    def names(self) -> list[str]:
        return sorted(self.members)

    def member(self, name: str) -> Member | None:
        return self.members.get(name)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[object]]:
        self.subscriptions += 1
        self._send, receive = trio.open_memory_channel[object](100)

        async def events() -> AsyncIterator[object]:
            async for event in receive:
                if isinstance(event, Exception):
                    raise event
                yield event

        yield events()

    async def status_change(self) -> None:
        await self.changed.wait()

    def become(self, name: str, status: MemberStatus) -> None:
        self.members[name] = attrs.evolve(self.members[name], status=status)
        self.changed.set()
        self.changed = trio.Event()

    def tell(self, event: object) -> None:
        assert self._send is not None
        self._send.send_nowait(event)

    def add(self, *members: Member) -> None:
        self.members.update({each.name: each for each in members})
        self.tell(MemberEvent(MemberEventKind.JOIN, members))

    def end(self) -> None:
        assert self._send is not None
        self._send.close()


@define(eq=False)
class Running:
    """A server that runs."""

    address: Address
    cluster: Cluster
    counters: DnsCounters
    errors: InternalErrors

    async def ask(self, name: str, kind: str = "A", **options: Any) -> dns.message.Message:
        return dns.message.from_wire(await self.exchange(asked(name, kind, **options)))

    async def exchange(self, message: bytes) -> bytes:
        family = socket.AF_INET6 if ":" in self.address.host else socket.AF_INET
        with trio.fail_after(SECONDS), trio.socket.socket(family, socket.SOCK_DGRAM) as client:
            await client.connect((self.address.host, self.address.port))
            await client.send(message)
            return await client.recv(65_535)

    async def until(self, *expected: str, name: str = "blue.proglog") -> None:
        """Wait until a name has these addresses."""
        with trio.fail_after(SECONDS):
            while contents(await self.ask(name)) != set(expected):  # noqa: ASYNC110 - asked of a server
                await trio.sleep(0.01)


@asynccontextmanager
async def serving(
    *members: Member, config: DnsConfig | None = None, found: dict[str, Sequence[str]] | None = None
) -> AsyncIterator[Running]:
    async def look_up(host: str) -> Sequence[IpAddress]:
        return [ip_address(each) for each in (found or {}).get(host, ())]

    cluster = Cluster({each.name: each for each in members})
    config = config or DnsConfig(address=HERE, cluster_name="blue", ttl=1, like=LIKE)
    errors, counters, joined = InternalErrors(), DnsCounters(), trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_dns, config, cluster, errors, counters, joined=joined, lookup=look_up)
        address = await nursery.start(serve)
        joined.set()
        running = Running(address, cluster, counters, errors)
        # Answered once there is a listing, and somebody listens to news.
        await running.ask("ns.blue.proglog")
        yield running
        # Whatever a test has done, the next one who asks is answered.
        assert code(await running.ask("ns.blue.proglog")) == "NOERROR"
        async with await connected(running) as stream:
            assert code(await converse(stream, asked("ns.blue.proglog"))) == "NOERROR"
        nursery.cancel_scope.cancel()


async def connected(running: Running) -> trio.SocketStream:
    return await trio.open_tcp_stream(running.address.host, running.address.port)


async def converse(stream: trio.SocketStream, question: bytes) -> dns.message.Message:
    with trio.fail_after(SECONDS):
        await stream.send_all(len(question).to_bytes(2, "big") + question)
        return await received(stream)


async def received(stream: trio.SocketStream) -> dns.message.Message:
    with trio.fail_after(SECONDS):
        length = int.from_bytes(await received_bytes(stream, 2), "big")
        return dns.message.from_wire(await received_bytes(stream, length))


async def received_bytes(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        assert more, "the stream ended"
        data += more
    return data


async def ended(stream: trio.SocketStream) -> bool:
    """Wait until the server has closed; tell whether nothing came before."""
    with trio.fail_after(SECONDS):
        try:
            return not await stream.receive_some(1)
        except trio.BrokenResourceError:
            return True


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_nodes_that_come_and_go_are_told_of() -> None:
    async with serving(member("a", "10.0.0.1:1")) as running:
        assert contents(await running.ask("blue.proglog")) == {"10.0.0.1"}
        running.cluster.add(member("b", "10.0.0.2:1"))
        await running.until("10.0.0.1", "10.0.0.2")
        running.cluster.add(member("a", "10.0.0.1:1", status=MemberStatus.FAILED))
        await running.until("10.0.0.2")
        assert running.counters.nodes == 1


async def test_who_is_leaving_is_told_of_no_more() -> None:
    async with serving(member("a", "10.0.0.1:1"), member("b", "10.0.0.2:1")) as running:
        for status, told in ((MemberStatus.LEAVING, ["10.0.0.2"]), (MemberStatus.ALIVE, ["10.0.0.1", "10.0.0.2"])):
            running.cluster.become("a", status)
            await running.until(*told)


async def test_questions_wait_until_the_node_has_joined() -> None:
    cluster = Cluster()
    config = DnsConfig(address=HERE, cluster_name="blue", ttl=1, like=LIKE)
    joined = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_dns, config, cluster, InternalErrors(), DnsCounters(), joined=joined)
        address = await nursery.start(serve)
        running = Running(address, cluster, DnsCounters(), InternalErrors())
        async with trio.open_nursery() as asking:

            async def ask() -> None:
                assert contents(await running.ask("blue.proglog")) == {"10.0.0.1"}

            asking.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            cluster.members["a"] = member("a", "10.0.0.1:1")
            joined.set()
        nursery.cancel_scope.cancel()


async def test_who_missed_news_looks_at_all_members_anew() -> None:
    async with serving() as running:
        running.cluster.members["a"] = member("a", "10.0.0.1:1")
        running.cluster.tell(EventsMissed("too many"))
        await running.until("10.0.0.1")
        assert running.cluster.subscriptions == 2


async def test_other_news_makes_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running:
        before = [str(each) for each in (await running.ask("blue.proglog", "SOA")).answer[0]]
        for _ in range(50):
            running.cluster.tell("a user's event")
        await trio.sleep(3 * directory.REST_SECONDS)
        assert [str(each) for each in (await running.ask("blue.proglog", "SOA")).answer[0]] == before


async def test_without_news_the_members_are_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "LOOK_AGAIN_SECONDS", 0.05)
    async with serving() as running:
        running.cluster.members["a"] = member("a", "10.0.0.1:1")
        await running.until("10.0.0.1")


async def test_what_was_there_is_told_of_when_the_membership_has_ended() -> None:
    async with serving(member("a", "10.0.0.1:1")) as running:
        running.cluster.end()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert contents(await running.ask("blue.proglog")) == {"10.0.0.1"}


async def test_hosts_are_looked_up_beside() -> None:
    async with serving(member("a", "db.example:1"), found={"db.example": ["10.0.0.5"]}) as running:
        await running.until("10.0.0.5")
        await running.until("10.0.0.5", name="a.node.blue.proglog")
        assert running.counters.nodes_without_address == 0


@pytest.mark.internal_errors
async def test_a_listing_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running:
        with monkeypatch.context() as patch:
            patch.setattr(Cluster, "member", lambda *_: 1 / 0)
            running.cluster.add(member("a", "10.0.0.1:1"))
            with trio.fail_after(SECONDS):
                while not running.errors.counts[Where.DNS_LISTING]:  # noqa: ASYNC110 - a counter
                    await trio.sleep(0.01)
        running.cluster.add(member("b", "10.0.0.2:1"))
        await running.until("10.0.0.1", "10.0.0.2")


# -- by packet ---------------------------------------------------------------------------------------------------------


async def test_a_bad_packet_costs_itself_alone() -> None:
    async with serving(member("a", "10.0.0.1:1")) as running:
        assert (await running.exchange(b"\1\2\0\0\0\1" + bytes(6)))[3] & 15 == 1
        with trio.socket.socket(type=socket.SOCK_DGRAM) as client:
            for bad in (b"", b"x", b"\xff" * 60_000, asked("a.example") + b"x" * 2000):
                await client.sendto(bad, (running.address.host, running.address.port))
        assert contents(await running.ask("blue.proglog")) == {"10.0.0.1"}
        assert (running.counters.malformed, running.counters.ignored) == (2, 3)


@pytest.mark.internal_errors
async def test_a_packet_that_shows_a_mistake_slows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Responder.answer

    def failing(self: Responder, message: bytes, *, by_stream: bool) -> bytes | None:
        if message == b"mistake":
            raise RuntimeError("unforeseen")
        return answer(self, message, by_stream=by_stream)

    monkeypatch.setattr(Responder, "answer", failing)
    async with serving(member("a", "10.0.0.1:1")) as running:
        with trio.socket.socket(type=socket.SOCK_DGRAM) as client:
            for _ in range(20):
                await client.sendto(b"mistake", (running.address.host, running.address.port))
        # The pauses of a loop that fails would be 5 seconds by now.
        with trio.fail_after(4):
            assert contents(await running.ask("blue.proglog")) == {"10.0.0.1"}
        assert running.errors.counts[Where.DNS_PACKET] == 20


async def test_an_answer_that_cannot_be_sent_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "no way")

    async with serving(member("a", "10.0.0.1:1")) as running:
        with monkeypatch.context() as patch, trio.socket.socket(type=socket.SOCK_DGRAM) as client:
            patch.setattr(DnsSockets, "send", fail)
            await client.sendto(asked("blue.proglog"), (running.address.host, running.address.port))
            with trio.fail_after(SECONDS):
                while not running.counters.unsent:  # noqa: ASYNC110 - a counter
                    await trio.sleep(0.01)
        assert running.errors.total == 0


@pytest.mark.parametrize(("host", "family"), [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])  # noqa: S104
async def test_an_answer_comes_from_the_address_that_was_asked(host: str, family: socket.AddressFamily) -> None:
    config = DnsConfig(address=Address(host, 0), cluster_name="blue", ttl=1, like=LIKE, own_host="127.0.0.7")
    async with serving(member("a", "10.0.0.1:1"), config=config) as running:
        target = "127.0.0.9" if family == socket.AF_INET else "::1"
        with trio.fail_after(SECONDS), trio.socket.socket(family, socket.SOCK_DGRAM) as client:
            await client.connect((target, running.address.port))
            await client.send(asked("ns.blue.proglog"))
            # nothing arrives there from any other address
            assert contents(dns.message.from_wire(await client.recv(2000))) == {"127.0.0.7"}
        running.address = Address(target, running.address.port)


# -- by stream ---------------------------------------------------------------------------------------------------------


async def test_what_is_cut_comes_whole_by_stream() -> None:
    members = [member(f"n{number}", f"10.0.0.{number}:1") for number in range(90)]
    async with serving(*members) as running:
        assert is_cut(await running.ask("blue.proglog"))
        async with await connected(running) as stream:
            whole = await converse(stream, asked("blue.proglog"))
            assert not is_cut(whole)
            assert len(contents(whole)) == 90
            # and another on the same connection
            assert len(contents(await converse(stream, asked("n7.node.blue.proglog")))) == 1


async def test_questions_may_come_in_pieces_and_several_at_once() -> None:
    async with serving(member("a", "10.0.0.1:1")) as running, await connected(running) as stream:
        question = asked("a.node.blue.proglog")
        framed = len(question).to_bytes(2, "big") + question
        for byte in framed + framed + framed:
            await stream.send_all(bytes((byte,)))
        for _ in range(3):
            assert contents(await received(stream)) == {"10.0.0.1"}
        await stream.send_all(framed * 2)
        for _ in range(2):
            assert contents(await received(stream)) == {"10.0.0.1"}


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0", b"\0\5abcde", b"\0\x0c" + b"\xff" * 12, b"\0\x20half"])
async def test_a_stream_without_a_question_ends(sent: bytes) -> None:
    async with serving() as running, await connected(running) as stream:
        if sent:
            await stream.send_all(sent)
        await stream.send_eof()
        assert await ended(stream)


async def test_a_question_that_is_too_large_is_refused_and_the_stream_ends() -> None:
    async with serving() as running, await connected(running) as stream:
        question = asked("blue.proglog") + b"x" * MAX_QUESTION_BYTES
        assert code(await converse(stream, question)) == "FORMERR"
        assert await ended(stream)
        # at once, not when nothing came for too long
        assert running.counters.connections_ended == 0


async def test_streams_on_which_nothing_comes_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "QUESTION_SECONDS", 0.1)
    async with serving() as running, await connected(running) as stream:
        await stream.send_all(b"\0")
        assert await ended(stream)
        assert running.counters.connections_ended == 1


async def test_streams_that_take_no_answers_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(server, "MAX_QUESTIONS", 1_000_000)
    members = [member(f"n{number}", f"10.0.0.{number}:1") for number in range(90)]
    async with serving(*members) as running, await connected(running) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        question = asked("blue.proglog", "SRV")
        with trio.fail_after(SECONDS):
            try:
                while not running.counters.connections_ended:
                    await stream.send_all((len(question).to_bytes(2, "big") + question) * 10)
            except trio.BrokenResourceError:
                pass
        assert running.counters.connections_ended == 1


async def test_for_one_stream_more_the_oldest_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server, "QUESTION_SECONDS", 1000.0)
    async with serving(member("a", "10.0.0.1:1")) as running:
        streams = [await connected(running) for _ in range(4)]
        for stream in streams[1:]:
            assert contents(await converse(stream, asked("blue.proglog"))) == {"10.0.0.1"}
        assert await ended(streams[0])
        for stream in streams:
            await stream.aclose()
        assert running.counters.connections == 4


async def test_others_have_a_turn_after_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    answered: list[int] = []
    answer = Responder.answer

    def noting(self: Responder, message: bytes, *, by_stream: bool) -> bytes | None:
        answered.append(turns)
        return answer(self, message, by_stream=by_stream)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with serving(member("a", "10.0.0.1:1")) as running:
        question = asked("blue.proglog")
        streams = [await connected(running) for _ in range(30)]
        for stream in streams:
            await converse(stream, question)
        with monkeypatch.context() as patch:
            patch.setattr(Responder, "answer", noting)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_turns)
                for stream in streams:
                    # Without a turn for the server in between, so that it finds all of them at once.
                    os.write(stream.socket.fileno(), len(question).to_bytes(2, "big") + question)
                for stream in streams:
                    await received(stream)
                nursery.cancel_scope.cancel()
        assert len(answered) == 30
        assert max(Counter(answered).values()) <= 2
        for stream in streams:
            await stream.aclose()


async def test_a_connection_has_so_many_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_QUESTIONS", 2)
    async with serving() as running, await connected(running) as stream:
        await converse(stream, asked("blue.proglog"))
        await converse(stream, asked("blue.proglog"))
        assert await ended(stream)


@pytest.mark.internal_errors
async def test_a_stream_that_shows_a_mistake_ends_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running, await connected(running) as stream:
        with monkeypatch.context() as patch:
            patch.setattr(Responder, "answer", lambda *_, **__: 1 / 0)
            await stream.send_all(b"\0\1x")
            assert await ended(stream)
        assert running.errors.counts[Where.DNS_STREAM] == 1


# -- where -------------------------------------------------------------------------------------------------------------


async def test_an_address_that_another_has_is_said_to_be_in_use() -> None:
    async with serving() as running:
        config = DnsConfig(address=running.address, cluster_name="blue", ttl=1)
        with pytest.raises(AddressInUse, match=r"cannot serve DNS on 127.0.0.1:\d+: the port is in use"):
            await serve_dns(config, Cluster(), InternalErrors(), DnsCounters(), joined=trio.Event())
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        config = DnsConfig(address=Address(*udp.getsockname()), cluster_name="blue", ttl=1)
        with pytest.raises(AddressInUse, match=r"cannot serve DNS on .* \(UDP\): the port is in use"):
            await serve_dns(config, Cluster(), InternalErrors(), DnsCounters(), joined=trio.Event())


@pytest.mark.parametrize("host", ["192.0.2.1", "there-is-none.invalid"])
async def test_an_address_that_is_not_here_is_said_to_be_so(host: str) -> None:
    config = DnsConfig(address=Address(host, 0), cluster_name="blue", ttl=1)
    with pytest.raises(AddressUnavailable, match="cannot serve DNS on"):
        await serve_dns(config, Cluster(), InternalErrors(), DnsCounters(), joined=trio.Event())


async def test_a_cluster_that_cannot_stand_in_a_name_is_refused() -> None:
    config = DnsConfig(address=HERE, cluster_name="two words", ttl=1)
    with pytest.raises(ValueError, match="'two words' has ' '"):
        await serve_dns(config, Cluster(), InternalErrors(), DnsCounters(), joined=trio.Event())
