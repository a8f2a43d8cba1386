"""Accepting connections: TLS handshakes in tasks of their own, bounded in number and time.

A connection that shakes hands has no identity yet. When too many do, the one that has been at it for longest goes: true
clients need milliseconds, and those that only hold a place are the old ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import structlog
import trio
from attrs import define, field

from proglog_trio.accepting import CLIENT_GONE, OUT_OF_RESOURCES, RETRY_SECONDS, TELL_SECONDS
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.repetition import Repetitions
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.server.denial_log import DenialLog
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.security.tls_problems import tls_problem, unaccepted

_SHUTDOWN_SECONDS = 2.0

_logger = structlog.get_logger(__name__)


@define(eq=False)
class Acceptor:
    """What turns accepted sockets into connections.

    Attributes:
        loop: asyncio's, that the connections live on.
        new_protocol: makes the protocol of a connection whose handshake is done.
        context: gives the TLS context for a new connection; None: no TLS.
        max_handshakes: how many may be under way at once.
        handshake_seconds: how long one may take.
        counters: where to count.
        errors: where unforeseen errors are counted.
    """

    loop: asyncio.AbstractEventLoop
    new_protocol: Callable[[], asyncio.Protocol]
    context: Callable[[], ssl.SSLContext] | None
    max_handshakes: int
    handshake_seconds: float
    counters: ServerCounters
    errors: InternalErrors
    # Those under way, the oldest first; at most max_handshakes. A cancelled one is out of it before it has ended.
    _handshakes: dict[trio.CancelScope, None] = field(factory=dict)
    _denials: DenialLog = field(factory=DenialLog)

    async def run(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        """Accept connections until cancelled; their handshakes run in the nursery."""
        listener = trio.socket.from_stdlib_socket(listening)
        shortages = Repetitions(period=TELL_SECONDS)
        turns = self.errors.turns(Where.RPC_ACCEPT)
        while True:
            async with turns:
                try:
                    accepted, peer = await listener.accept()
                except OSError as error:
                    if error.errno in OUT_OF_RESOURCES:
                        self.counters.accept_failures += 1
                        if shortages.news(error.errno) is not None:
                            _logger.error("cannot accept a connection", reason=error.strerror)
                        await trio.sleep(RETRY_SECONDS)
                    elif error.errno not in CLIENT_GONE:
                        raise
                    continue
                self._begin(accepted, str(peer[0]), nursery)

    def _begin(self, accepted: trio.socket.SocketType, peer: str, nursery: trio.Nursery) -> None:
        """Begin to shake hands with a client."""
        # The protocol is named since asyncio sets TCP_NODELAY only where it is.
        owned = socket.socket(accepted.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=accepted.detach())
        try:
            scope = trio.CancelScope()
            self._make_room()
            self._handshakes[scope] = None
            nursery.start_soon(self._connect, owned, peer, scope)
        except BaseException:
            owned.close()
            raise

    def _make_room(self) -> None:
        while len(self._handshakes) >= self.max_handshakes:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()

    async def _connect(self, accepted: socket.socket, peer: str, scope: trio.CancelScope) -> None:
        # Whether the socket is asyncio's, which closes it whatever happens.
        entered = False

        async def connect() -> None:
            nonlocal entered
            # Before the socket is asyncio's to close: either may fail.
            context = None if self.context is None else self.context()
            protocol = self.new_protocol()
            entered = True
            if context is None:
                await self.loop.connect_accepted_socket(lambda: protocol, accepted)
                return
            await self.loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.handshake_seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )

        try:
            with self.errors.boundary(Where.RPC_ACCEPT, peer=peer), scope, contextlib.suppress(OSError):
                try:
                    await aio_as_trio(connect)()
                except ssl.SSLCertVerificationError as error:
                    self._denials.tell("a certificate was not accepted", peer=peer, reason=unaccepted(error))
                    raise
                except ssl.SSLError as error:
                    self._denials.tell(
                        "a client did not get through the TLS handshake", peer=peer, reason=tls_problem(error)
                    )
                    raise
                return
            # The other side is no TLS client, has a certificate that is not accepted, was too slow, or made room.
            self.counters.handshakes_failed += 1
        finally:
            self._handshakes.pop(scope, None)
            if not entered:
                accepted.close()
