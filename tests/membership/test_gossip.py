import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from attrs import evolve

from proglog_trio.errors import AddressUnavailable, AddressUnsuitable
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.exchanges import MAX_EXCHANGES
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.sockets import RECEIVE_BUFFER_BYTES
from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.stream_server import MAX_STREAMS
from proglog_trio.membership.swim.effects import ExchangeState, PingByStream, SendPacket
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.prober import Prober
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    ErrorMessage,
    IndirectPing,
    Nack,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import UserEvent, encode_serf
from tests.membership.running import LOCAL, eventually, start_ours_in
from tests.membership.wire.at_once import decode_packet

VERSION = bytes((1, 5, 2, 2, 5, 4))
KEYRING = Keyring((bytes(16),))


def open_files() -> int:
    """How many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def bind(name: str = "me", **options: Any) -> Gossip:
    """Take the sockets of a member."""
    config = evolve(GossipConfig(name=name, profile=LOCAL), **options)
    return await Gossip.bind(config, {}, lambda _event: None, random.Random(1))


@asynccontextmanager
async def gossiping(**options: Any) -> AsyncIterator[Gossip]:
    """Run a member, for as long as the block runs."""
    gossip = await bind(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        yield gossip
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def udp_socket() -> AsyncIterator[trio.socket.SocketType]:
    """Open a socket that sends and receives packets."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as opened:
        await opened.bind(("127.0.0.1", 0))
        yield opened


def at(gossip: Gossip) -> tuple[str, int]:
    """Where a member is."""
    return gossip.endpoint.host, gossip.endpoint.port


async def still_answers(gossip: Gossip) -> None:
    """Fail unless a member answers by packet and by stream."""
    keyring, label = gossip.config.keyring, gossip.config.label
    with trio.fail_after(30):
        async with udp_socket() as udp:
            (packet,) = encode_packets([Ping(seq_no=9, node="me")], keyring=keyring, label=label)
            await udp.sendto(packet, at(gossip))
            answer, source = await udp.recvfrom(65_535)
            assert source == at(gossip)
            (ack, *_) = decode_packet(answer, keyring=keyring, label=label).messages
            assert isinstance(ack, Ack)
            assert ack.seq_no == 9
        ack_by_stream = await StreamCodec(keyring, label).ask(gossip.endpoint, Ping(seq_no=10, node="me"), 30)
        assert isinstance(ack_by_stream, Ack)
        assert ack_by_stream.seq_no == 10


# -- sockets -----------------------------------------------------------------------------------------------------------


async def test_nothing_is_left_open() -> None:
    before = open_files()
    async with gossiping() as gossip:
        await still_answers(gossip)
        dialled = await trio.open_tcp_stream(*at(gossip))
        await dialled.send_all(b"\x06")
    await dialled.aclose()
    await (await bind()).close()
    assert open_files() == before


async def test_one_port_for_packets_and_streams() -> None:
    gossip = await bind()
    try:
        with socket.socket() as tcp, pytest.raises(OSError, match="in use"):
            tcp.bind(at(gossip))
        with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(OSError, match="in use"):
            udp.bind(at(gossip))
    finally:
        await gossip.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["streams", "packets"])
async def test_a_port_that_another_has(kind: socket.SocketKind) -> None:
    before = open_files()
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port}.*in use"):
            await bind(bind_port=port)
    assert open_files() == before


async def test_what_is_advertised() -> None:
    before = open_files()
    gossip = await bind(bind_host="0.0.0.0", advertise_host="127.0.0.9", advertise_port=1234)  # noqa: S104 - for a moment
    assert str(gossip.endpoint) == "127.0.0.9:1234"
    await gossip.close()
    gossip = await bind(advertise_host="localhost")
    assert gossip.endpoint.host == "127.0.0.1"
    await gossip.close()
    with pytest.raises(AddressUnsuitable, match=r"others cannot dial 0\.0\.0\.0"):
        await bind(bind_host="0.0.0.0")  # noqa: S104 - it is refused
    with pytest.raises(AddressUnavailable, match=r"the host of --advertise-addr, no\.such\.name\.invalid"):
        await bind(advertise_host="no.such.name.invalid")
    with pytest.raises(ValueError, match="512"):
        await Gossip.bind(GossipConfig(name="me"), {"tag": "x" * 600}, lambda _event: None, random.Random(1))
    assert open_files() == before


async def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    async with start_ours_in() as start:
        a = await start("a", host="::1")
        b = await start("b", host="::1", join=[a.address])
        await a.until_status("alive", "b")
        await b.until_status("alive", "a")
        assert a.members()["b"].address == "::1"
        await a.until_measured("b")


# -- what arrives ------------------------------------------------------------------------------------------------------


async def test_garbage_in_packets_counts_and_is_harmless() -> None:
    rng = random.Random(3)
    ping = encode_packets([Ping(seq_no=1, node="me")])[0]
    async with gossiping() as gossip, udp_socket() as udp:
        packets = [b"", b"\x00", *(rng.randbytes(rng.randrange(1, 1400)) for _ in range(200))]
        packets += [ping[:length] for length in range(len(ping))]
        for packet in packets:
            await udp.sendto(packet, at(gossip))

        async def received() -> int:
            return gossip.counters.packets_received

        # Loopback may lose packets as well when the receiver's buffer is full.
        await eventually(received, lambda count: count > len(packets) // 2)
        await still_answers(gossip)
        assert gossip.counters.packets_refused > len(packets) // 3


async def test_messages_that_make_no_sense_are_harmless() -> None:
    nowhere = IndirectPing(
        seq_no=1, target=bytes(16), port=0, node="x", nack=True, source_addr=bytes(4), source_port=0, source_node=""
    )
    elsewhere = NodeState("v6", bytes(15) + b"\x01", 9, b"", 1, NodeStateType.ALIVE, VERSION)
    async with gossiping() as gossip, udp_socket() as udp:
        for message in (nowhere, Ack(seq_no=99, payload=b"?"), Nack(seq_no=98), UserMessage(b""), UserMessage(b"\xff")):
            await udp.sendto(encode_packets([message])[0], at(gossip))
        await StreamCodec().ask(gossip.endpoint, PushPull((elsewhere,), b""), 30)
        await StreamCodec().ask(gossip.endpoint, PushPull((), b"\x07no state"), 30)
        gossip._do(SendPacket(Endpoint(bytes(16), 1), (b"\x00",)))
        await still_answers(gossip)
        assert gossip.counters.packets_dropped >= 1  # to an IPv6 address, from an IPv4 socket


async def test_garbage_in_streams_counts_and_is_harmless() -> None:
    rng = random.Random(4)
    async with gossiping() as gossip:
        for _ in range(50):
            stream = await trio.open_tcp_stream(*at(gossip))
            async with stream:
                await stream.send_all(bytes((rng.choice((6, 8, 9, 10, 12, 244, 250)),)) + rng.randbytes(300))
                await stream.send_eof()
                with trio.fail_after(30):
                    await _until_closed(stream)
        await still_answers(gossip)
        assert gossip.counters.streams_refused == 50


async def _until_closed(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_half_open_and_slow_streams_are_ended() -> None:
    quick = evolve(LOCAL, stream_timeout=0.2)
    async with gossiping(profile=quick) as gossip, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def silent() -> None:
            async with await trio.open_tcp_stream(*at(gossip)) as stream:
                await _until_closed(stream)

        async def slow() -> None:
            async with await trio.open_tcp_stream(*at(gossip)) as stream:
                try:
                    await stream.send_all(b"\x06\xdf\x00\x00\x00\x05")
                    while True:
                        await stream.send_all(b"\xa1")
                        await trio.sleep(0.02)
                except trio.BrokenResourceError:
                    pass

        with trio.fail_after(30):
            async with trio.open_nursery() as streams:
                for _ in range(5):
                    streams.start_soon(silent)
                    streams.start_soon(slow)
        assert trio.current_time() - began >= 0.2
        assert gossip.counters.streams_refused == 10
        await still_answers(gossip)
        nursery.cancel_scope.cancel()


async def test_the_oldest_stream_makes_room_for_one_more() -> None:
    patient = evolve(LOCAL, stream_timeout=30)
    async with gossiping(profile=patient) as gossip, AsyncExitStack() as stack:
        streams = []
        for _ in range(MAX_STREAMS):
            streams.append(await stack.enter_async_context(await trio.open_tcp_stream(*at(gossip))))
            await streams[-1].send_all(b"\x06")
        await still_answers(gossip)
        with trio.fail_after(20):
            await _until_closed(streams[0])
        assert gossip.counters.streams_refused == 1


async def test_no_more_exchanges_than_allowed_are_under_way() -> None:
    async with gossiping() as gossip:
        # Its own listener is as good as any: nothing was accepted yet when the last is asked for.
        for number in range(MAX_EXCHANGES + 5):
            gossip._do(ExchangeState(Endpoint(bytes((127, 0, 1, number + 1)), 9), "x"))
        gossip._do(ExchangeState(Endpoint(bytes((127, 0, 1, 1)), 9), "x"))
        assert gossip.counters.exchanges_failed == 6

        async def failed() -> int:
            return gossip.counters.exchanges_failed

        await eventually(failed, lambda count: count == MAX_EXCHANGES + 6)


# -- keys and labels ---------------------------------------------------------------------------------------------------


async def test_with_a_key_plain_is_refused() -> None:
    async with gossiping(keyring=KEYRING) as gossip, udp_socket() as udp:
        await udp.sendto(encode_packets([Ping(seq_no=1, node="me")])[0], at(gossip))
        with pytest.raises(ExchangeFailed):
            await StreamCodec().ask(gossip.endpoint, PushPull(), 30)
        await still_answers(gossip)
        assert gossip.counters.packets_refused == 1
        assert gossip.counters.streams_refused == 1


async def test_who_is_refused_on_a_stream_is_told_why() -> None:
    async with gossiping(keyring=KEYRING) as gossip:
        with pytest.raises(ExchangeFailed, match="is encrypted, and there is no keyring"):
            await StreamCodec().ask(gossip.endpoint, PushPull(), 30)
        async with await trio.open_tcp_stream(*at(gossip)) as stream:
            with trio.fail_after(30):
                # Of a state that is longer than what is read of it first.
                await stream.send_all(b"\x06" + bytes(3 * 1024 * 1024))
                answer = await StreamCodec(KEYRING).receive(stream, from_dialler=False)
        assert isinstance(answer, ErrorMessage)
        assert "is not encrypted" in answer.error
    async with gossiping() as gossip:
        with pytest.raises(ExchangeFailed, match="is not encrypted"):
            await StreamCodec(KEYRING).ask(gossip.endpoint, PushPull(), 30)


async def test_only_who_asks_to_ignores_events_of_before() -> None:
    async with gossiping(name="there") as there:
        there.act(lambda: there.core.receive(encode_serf(UserEvent(5, "deploy", b"", False))))
        async with gossiping() as gossip:
            await gossip.exchanges.exchange(there.endpoint, join=True)
            assert list(gossip.core.events.recent.items()) == [(5, [("deploy", b"")])]
        async with gossiping() as gossip:
            await gossip.exchanges.exchange(there.endpoint, join=True, ignore_events=True)
            assert list(gossip.core.events.recent.items()) == []
            # Nor does an older one arrive later.
            gossip.act(lambda: gossip.core.receive(encode_serf(UserEvent(4, "old", b"", False))))
            gossip.act(lambda: gossip.core.receive(encode_serf(UserEvent(9, "new", b"", False))))
            assert [time for time, _ in gossip.core.events.recent.items()] == [9]


async def test_packets_that_come_in_a_burst_have_room() -> None:
    async with gossiping() as gossip:
        allowed = int(await trio.Path("/proc/sys/net/core/rmem_max").read_text())
        given = gossip._udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert given >= 2 * min(RECEIVE_BUFFER_BYTES, allowed)  # Linux counts its own bookkeeping in.


async def test_without_a_key_encrypted_is_refused() -> None:
    async with gossiping() as gossip, udp_socket() as udp:
        await udp.sendto(encode_packets([Ping(seq_no=1, node="me")], keyring=KEYRING)[0], at(gossip))
        with pytest.raises(ExchangeFailed):
            await StreamCodec(KEYRING).ask(gossip.endpoint, PushPull(), 30)
        await still_answers(gossip)
        assert gossip.counters.packets_refused == 1


async def test_another_label_is_refused() -> None:
    async with gossiping(label=b"here") as gossip, udp_socket() as udp:
        for label in (b"", b"there"):
            await udp.sendto(encode_packets([Ping(seq_no=1, node="me")], label=label)[0], at(gossip))
            with pytest.raises(ExchangeFailed):
                await StreamCodec(label=label).ask(gossip.endpoint, PushPull(), 30)
        await still_answers(gossip)
        assert gossip.counters.packets_refused == 2
        assert gossip.counters.streams_refused == 2


async def test_another_key_is_told_on_both_sides_once_an_hour() -> None:
    other = Keyring((bytes(range(16)),))
    with structlog.testing.capture_logs() as logs:
        async with gossiping(keyring=KEYRING) as gossip, udp_socket() as udp:
            gossip.core.swim.rules.nodes["who"] = Node(
                "who", Endpoint.of("127.0.0.1", 1), b"", VERSION, 1, NodeStatus.DEAD, 0
            )
            codec = StreamCodec(other)
            for _ in range(3):
                with pytest.raises(ExchangeFailed, match="has another gossip key than this node"):
                    await codec.ask(gossip.endpoint, Ping(seq_no=1, node="me"), 30)
                await udp.sendto(encode_packets([Ping(seq_no=1, node="me")], keyring=other)[0], at(gossip))
                await udp.sendto(encode_packets([Ping(seq_no=1, node="me")])[0], at(gossip))

            async def refused() -> int:
                return gossip.counters.packets_refused

            await eventually(refused, lambda count: count == 6)
    (told,) = [log for log in logs if log["log_level"] == "warning"]
    assert told["event"].startswith("gossip that cannot be decrypted: who sends it has another gossip key")
    assert (told["address"], told["members"]) == ("127.0.0.1", ["who"])


async def test_an_answer_with_another_key_is_called_that() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await StreamCodec(Keyring((bytes(range(16)),))).send(stream, Ack(seq_no=1, payload=b""), from_dialler=False)

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        endpoint = Endpoint.of(*listener.socket.getsockname())
        with pytest.raises(ExchangeFailed, match="has another gossip key than this node, or none"):
            await StreamCodec(KEYRING).ask(endpoint, Ping(seq_no=1, node="me"), 30)
        nursery.cancel_scope.cancel()


async def test_packets_that_are_blocked_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gossip, "_send_packet", lambda *_: None)
    with structlog.testing.capture_logs() as logs:
        async with start_ours_in() as start:
            a = await start("a")
            b = await start("b", join=[a.address])
            blocked = (
                "a member answers streams (TCP) and no packets (UDP): is its port blocked for UDP, or not published?"
            )

            async def told() -> set[str]:
                return {log["member"] for log in logs if log["event"] == blocked}

            await eventually(told, lambda members: members == {"a", "b"})
            await b.until_status("alive", "a", "b")
    assert [log["event"] for log in logs].count(blocked) == 2


async def test_keys_and_labels_that_agree() -> None:
    key = "AAAAAAAAAAAAAAAAAAAAAA=="
    async with start_ours_in() as start:
        a = await start("a", key=key, label=b"here")
        b = await start("b", key=key, label=b"here", join=[a.address])
        await a.until_status("alive", "b")
        await b.until_measured("a")
        await b.leave()
        await a.until_status("left", "b")


# -- what others ask ---------------------------------------------------------------------------------------------------


async def test_a_look_changes_nothing() -> None:
    async with gossiping() as gossip, gossiping(name="other") as other:
        state = await other.exchanges.look(gossip.endpoint)
        assert [node.name for node in state.nodes] == ["me"]
        assert list(gossip.core.members.by_name) == ["me"]
        assert list(other.core.members.by_name) == ["other"]


async def test_pings_on_behalf_of_others() -> None:
    async with gossiping() as gossip, udp_socket() as asker, udp_socket() as target:
        host, port = target.getsockname()

        def request(number: int) -> bytes:
            message = IndirectPing(
                seq_no=number,
                target=socket.inet_aton(host),
                port=port,
                node="target",
                nack=True,
                source_addr=b"",
                source_port=0,
                source_node="",
            )
            return encode_packets([message])[0]

        with trio.fail_after(30):
            await asker.sendto(request(41), at(gossip))
            (ping, *_) = decode_packet((await target.recvfrom(65_535))[0]).messages
            assert isinstance(ping, Ping)
            assert ping.node == "target"
            await target.sendto(encode_packets([Ack(seq_no=ping.seq_no, payload=b"")])[0], at(gossip))
            (ack, *_) = decode_packet((await asker.recvfrom(65_535))[0]).messages
            assert isinstance(ack, Ack)
            assert ack.seq_no == 41

            await asker.sendto(request(42), at(gossip))
            (nack, *_) = decode_packet((await asker.recvfrom(65_535))[0]).messages
            assert nack == Nack(seq_no=42)


async def test_a_ping_for_another_is_not_answered() -> None:
    async with gossiping() as gossip, udp_socket() as udp:
        with pytest.raises(ExchangeFailed):
            await StreamCodec().ask(gossip.endpoint, Ping(seq_no=1, node="you"), 30)
        await udp.sendto(encode_packets([Ping(seq_no=1, node="you")])[0], at(gossip))
        await still_answers(gossip)
        with trio.move_on_after(0.05) as scope:
            await udp.recvfrom(65_535)
        assert scope.cancelled_caught


async def test_a_stream_that_answers_with_something_else_is_no_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gossiping() as gossip:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                ping = await StreamCodec().receive(stream, from_dialler=True)
                assert isinstance(ping, Ping)
                answer = Ack(seq_no=ping.seq_no + 1, payload=b"") if ping.seq_no == 1 else PushPull()
                await StreamCodec().send(stream, answer, from_dialler=False)

        ended: list[bool] = []

        def note(_prober: Prober, _number: int, *, answered: bool) -> None:
            ended.append(answered)

        monkeypatch.setattr(Prober, "stream_ping_ended", note)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
            endpoint = Endpoint.of("127.0.0.1", listener.socket.getsockname()[1])
            for number in (1, 2):
                await gossip.exchanges._ping(PingByStream(endpoint, "other", number, 30))
            nursery.cancel_scope.cancel()
        assert ended == [False, False]
