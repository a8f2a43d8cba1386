"""Connections that do nothing, or next to nothing, over a real process: other clients do not notice."""

from __future__ import annotations

import contextlib
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import trio

from proglog_trio.client import open_consumer, open_producer
from proglog_trio.rpc.calls.cluster import get_members
from tests.node_process import NodeProcess, node_process
from tests.pki import Pki

IDLE = 1000
MEBIBYTE = 1024 * 1024
Opener = Callable[[NodeProcess, Pki], Awaitable[trio.abc.Stream]]


def enough_files() -> None:
    """Let this process have the connections that it is to open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this system allows {hard} open files, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def address_of(node: NodeProcess, name: str = "rpc_addr") -> tuple[str, int]:
    host, _, port = str(node.ready[name]).rpartition(":")
    return host, int(port)


async def half_open(node: NodeProcess, pki: Pki) -> trio.abc.Stream:
    """A connection on which nothing is ever said."""
    return await trio.open_tcp_stream(*address_of(node))


async def slow(node: NodeProcess, pki: Pki) -> trio.abc.Stream:
    """A connection on which the handshake begins, and stops after a few bytes."""
    stream = await trio.open_tcp_stream(*address_of(node))
    await stream.send_all(b"\x16\x03\x01\x02\x00\x01")
    return stream


async def after_the_handshake(node: NodeProcess, pki: Pki) -> trio.abc.Stream:
    """A connection with TLS and no certificate, on which no HTTP/2 is spoken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "ca.pem")
    raw = await trio.open_tcp_stream(*address_of(node))
    stream = trio.SSLStream(raw, context, server_hostname="127.0.0.1")
    await stream.do_handshake()
    return stream


@contextlib.asynccontextmanager
async def many(opener: Opener, node: NodeProcess, pki: Pki) -> AsyncIterator[None]:
    """Hold a thousand connections for the length of the block; those that the node closes stay closed."""
    opened: list[trio.abc.Stream] = []
    limiter = trio.CapacityLimiter(50)

    async def open_one() -> None:
        async with limiter:
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                opened.append(await opener(node, pki))

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(IDLE):
                nursery.start_soon(open_one)
        yield
    finally:
        with trio.CancelScope(shield=True):
            for stream in opened:
                await trio.aclose_forcefully(stream)


# A thousand handshakes take ten seconds of a core. Connections on which there is none, or half of one, stay in the
# plain tests; what a node holds of those whose handshake is over is seen by the system's alone.
@pytest.mark.parametrize("opener", [half_open, slow, pytest.param(after_the_handshake, marks=pytest.mark.system)])
async def test_a_thousand_idle_connections_stop_nobody(tmp_path: Path, opener: Opener) -> None:
    enough_files()
    pki = Pki.make(tmp_path / "pki")
    async with node_process(tmp_path / "data", *pki.node_arguments(), "--node-name", "a") as node:
        before = psutil.Process(node.process.pid).memory_info().rss
        async with open_producer(node.address, connection=pki.connection()) as producer:
            await (await producer.send(b"before")).wait()
            async with many(opener, node, pki):
                # A stream that was open, a new connection, and commands.
                await (await producer.send(b"during")).wait()
                async with open_consumer(node.address, connection=pki.connection(), follow=False) as consumer:
                    assert [record.value async for record in consumer] == [b"before", b"during"]
                assert len(await get_members(node.address, 30.0, tls=pki.client_tls())) == 1
                # A connection with TLS costs some 100 KiB on top of what Python keeps for itself.
                assert psutil.Process(node.process.pid).memory_info().rss - before < 300 * MEBIBYTE
            await (await producer.send(b"after")).wait()
        assert await node.stop() == 0


async def test_a_thousand_idle_gossip_streams_stop_nobody(tmp_path: Path) -> None:
    enough_files()
    pki = Pki.make(tmp_path / "pki")
    options = ("--gossip-profile", "lan", "--encrypt", "AAECAwQFBgcICQoLDA0ODw==")
    async with node_process(tmp_path / "a", "--node-name", "a", *options) as node:

        async def silent_gossip(node: NodeProcess, pki: Pki) -> trio.abc.Stream:
            return await trio.open_tcp_stream(*address_of(node, "gossip_addr"))

        async with many(silent_gossip, node, pki):
            # A member that joins needs a stream, at once.
            joining = ("--node-name", "b", "--start-join-addrs", str(node.ready["gossip_addr"]), *options)
            async with node_process(tmp_path / "b", *joining) as joined:
                names = {member.name for member in await get_members(joined.address, 30.0)}
                assert names == {"a", "b"}
                assert await joined.stop() == 0
        assert await node.stop() == 0
