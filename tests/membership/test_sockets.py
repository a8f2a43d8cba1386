import random
import socket

import pytest
import trio

from proglog_trio.errors import AddressUnavailable, AddressUnsuitable
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.sockets import RECEIVE_BUFFER_BYTES
from tests.membership.gossiping import at, bind, gossiping, open_files


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


async def test_packets_that_come_in_a_burst_have_room() -> None:
    async with gossiping() as gossip:
        allowed = int(await trio.Path("/proc/sys/net/core/rmem_max").read_text())
        given = gossip._udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert given >= 2 * min(RECEIVE_BUFFER_BYTES, allowed)  # Linux counts its own bookkeeping in.
