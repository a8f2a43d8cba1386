"""Sockets that listen, or a clear error."""

from __future__ import annotations

import socket

import trio

from proglog_trio.address import Address
from proglog_trio.unavailable import unavailable


async def open_listening_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address that a host name stands for, all on one port.

    Args:
        host: a name or an address.
        port: 0: one that the operating system chooses.
        backlog: how many connections may wait to be accepted.

    Raises:
        AddressInUse: another process listens there.
        AddressUnavailable: the address is not known, not this machine's, or not permitted.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"cannot listen on {Address(host, port)}", error) from error
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            chosen_port = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_listen(family, (address[0], chosen_port, *address[2:]), backlog))
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise unavailable(f"cannot listen on {Address(host, port)}", error) from error
    return sockets


def _listen(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    # The protocol is named since asyncio sets TCP_NODELAY only where it is: without, each answer waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening
