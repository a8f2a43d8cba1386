"""Members that gossip and nothing else, for tests of what stands between sockets and a core."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.stream_io import StreamCodec
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Ping,
)
from proglog_trio.membership.wire.packet import encode_packets
from tests.membership.running import LOCAL
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
