import random
import socket
from functools import partial

import pytest
import structlog
import trio

from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.effects import SendPacket
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    IndirectPing,
    Nack,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from tests.membership.gossiping import KEYRING, VERSION, at, bind, gossiping, open_files, still_answers, udp_socket
from tests.membership.running import eventually, start_ours_in
from tests.membership.wire.at_once import decode_packet

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


# -- keys and labels ---------------------------------------------------------------------------------------------------


async def test_with_a_key_plain_is_refused() -> None:
    async with gossiping(keyring=KEYRING) as gossip, udp_socket() as udp:
        await udp.sendto(encode_packets([Ping(seq_no=1, node="me")])[0], at(gossip))
        with pytest.raises(ExchangeFailed):
            await StreamCodec().ask(gossip.endpoint, PushPull(), 30)
        await still_answers(gossip)
        assert gossip.counters.packets_refused == 1
        assert gossip.counters.streams_refused == 1


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
