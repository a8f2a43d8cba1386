from __future__ import annotations

import socket

import pytest

from proglog_trio.errors import AddressInUse
from proglog_trio.rpc.server.listeners import open_listening_sockets


async def test_every_address_of_a_name_on_one_port() -> None:
    sockets = await open_listening_sockets("localhost", 0, 10)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert sockets[0].getsockname()[1] != 0
        port = sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with pytest.raises(AddressInUse, match=f"^cannot listen on 127.0.0.1:{port}: the port is in use$"):
            await open_listening_sockets("127.0.0.1", port, 10)
    finally:
        for each in sockets:
            each.close()


async def test_delays_are_off_for_accepted_connections() -> None:
    """asyncio turns TCP's delays off only for sockets that name their protocol."""
    (listening,) = await open_listening_sockets("127.0.0.1", 0, 10)
    with listening:
        assert listening.proto == socket.IPPROTO_TCP
