"""The gRPC server: one Trio task from the first connection to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import structlog
import trio
from attrs import field, frozen, validators
from grpclib.config import Configuration
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.events import SendInitialMetadata, SendTrailingMetadata, _DispatchServerEvents, listen
from grpclib.health.check import CheckBase, ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection
from h2.config import H2Configuration
from h2.errors import ErrorCodes

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.http2.connection import abort_transport
from proglog_trio.rpc.http2.transport import TunedProtocol
from proglog_trio.rpc.http2.transport_config import TransportConfig, grpclib_configuration
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.descriptors import descriptor_pool
from proglog_trio.rpc.server.acceptor import Acceptor
from proglog_trio.rpc.server.authorization import Gate
from proglog_trio.rpc.server.denial_log import DenialLog
from proglog_trio.rpc.server.handlers import ServerCounters, ServerHandler, ServerState, Service, guarded
from proglog_trio.rpc.server.identity import identity_of
from proglog_trio.rpc.server.listeners import open_listening_sockets
from proglog_trio.security.reloading import FromFiles
from proglog_trio.security.tls import LoadedTls

_logger = structlog.get_logger(__name__)

_GOODBYE_SECONDS = 0.2
_ABORT_SECONDS = 1.0
MAX_REST_BYTES = 64 * 1024
"""Beside the long values of one request, and of one answer of a peer: protobuf reads it in a millisecond."""


@runtime_checkable
class TellsHealth(Protocol):
    """A service of which not everything can be done at all times."""

    def health_checks(self) -> Mapping[str, Collection[CheckBase]]:
        """Return what the health service is to say, by the names that it can be asked for."""


@frozen
class _Named:
    """What the health service is asked for, as grpclib finds a name."""

    name: str

    def __mapping__(self) -> Mapping[str, None]:
        return {f"/{self.name}/": None}


@runtime_checkable
class Draining(Protocol):
    """A service whose calls can come to a good end when the server stops."""

    async def drain(self) -> None:
        """Accept nothing more, finish what has been accepted, end calls that wait; cancelled if late (asyncio)."""


@frozen(kw_only=True)
class ServerConfig:
    """A server's limits.

    Attributes:
        transport: limits and keepalive of each connection.
        max_connections: for a connection above it, an idle one is closed; if there is none, the new one is sent away
            (GOAWAY, ENHANCE_YOUR_CALM, either way).
        max_handshakes: TLS handshakes that may be under way at once; above it the oldest is ended.
        backlog: how many connections may wait to be accepted.
        drain_seconds: how long calls may take to finish what they have accepted when the server stops.
        stop_seconds: how long the calls that are then cancelled may take to tell their clients.
    """

    transport: TransportConfig = field(
        factory=lambda: TransportConfig(keepalive_seconds=60.0, keepalive_timeout_seconds=30.0)
    )
    max_connections: int = field(default=4096, validator=validators.ge(1))
    max_handshakes: int = field(default=128, validator=validators.ge(1))
    backlog: int = field(default=256, validator=validators.ge(1))
    drain_seconds: float = field(default=0.8, validator=validators.ge(0))
    stop_seconds: float = field(default=0.8, validator=validators.ge(0))


@frozen
class ServerSecurity:
    """Which clients get through, and how they are told apart.

    Attributes:
        tls: the certificate, for each new connection.
        gate: decides about each request; None: clients cannot be told apart, and may do everything.
    """

    tls: FromFiles[LoadedTls]
    gate: Gate | None = None


class ServerProtocol(TunedProtocol):
    """One client's connection."""

    handler: ServerHandler

    def __init__(self, server: _Server) -> None:
        super().__init__(
            server.new_handler,
            server.grpclib_config,
            server.h2_config,
            transport_config=server.config.transport,
            refused_message=server.state.counters.message_refused,
            refused_request=server.state.counters.request_refused,
            errors=server.state.errors,
        )
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client, or send it away when there are too many."""
        boundary = self.errors.boundary(Where.RPC_CONNECTION)
        with boundary:
            self._begin(transport)
        if boundary.failed:
            # asyncio would keep it open, and it would never be answered.
            self._server.forget(self)
            abort_transport(cast("asyncio.Transport", transport))

    def _begin(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.admit(self):
            return
        self.say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM, b"too many connections")

    def tell_of_tls(self) -> None:
        """Log that a client speaks TLS, which this server does not, within bounds."""
        self._server.denials.tell("a client speaks TLS at a port that has none", peer=self.handler.peer)

    def say_goodbye(self, code: ErrorCodes, reason: bytes) -> None:
        """Send GOAWAY and close."""
        if not self.connection.is_closing():
            self.connection.h2_connection.close_connection(code, reason)
            self.connection.flush()
        self.processor.close("the node is stopping" if self._server.state.stopping else reason.decode())

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what still runs for this client."""
        with self.errors.boundary(Where.RPC_CONNECTION):
            if hasattr(self, "processor"):  # otherwise it never began
                super().connection_lost(exc)
        self._server.forget(self)


class _Server:
    """The connections of one server and what they have in common."""

    def __init__(
        self,
        services: Sequence[Service],
        config: ServerConfig,
        counters: ServerCounters,
        gate: Gate | None,
        errors: InternalErrors,
        cluster_name: str | None = None,
    ) -> None:
        self.config = config
        self.state = ServerState(counters, gate, errors=errors, cluster_name=cluster_name)
        self.services = services
        self.denials = DenialLog()
        self.grpclib_config: Configuration = grpclib_configuration().__for_server__()
        # Header names and values are checked by h2 on the way in; nothing checks ours on the way out.
        self.h2_config = H2Configuration(
            client_side=False,
            header_encoding="ascii",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._health = ServiceStatus()
        self._health.set(True)
        checks: dict[object, list[CheckBase]] = {OVERALL: [self._health]}
        for service in services:
            if isinstance(service, TellsHealth):
                for name, more in service.health_checks().items():
                    checks[_Named(name)] = [self._health, *more]
            else:
                checks[service] = [self._health]
        health = Health(cast("Any", checks))
        everything = ServerReflection.extend([*services, health], pool=descriptor_pool())
        self._mapping = {
            path: handler._replace(func=guarded(handler.func, self.state))
            for service in everything
            for path, handler in service.__mapping__().items()
        }
        self._codec = MessageCodec(MAX_REST_BYTES)
        self._status_details_codec = ProtoStatusDetailsCodec()
        # All requests pass it: grpclib.events.listen(server, RecvRequest, f) sees each before its method is called.
        self.__dispatch__ = _DispatchServerEvents()
        listen(self, SendInitialMetadata, self.state.say_cluster)
        listen(self, SendTrailingMetadata, self.state.say_cluster)
        # Every connection from connection_made to connection_lost, those that are sent away included. _all_gone is set
        # exactly while there is none.
        self._protocols: dict[ServerProtocol, None] = {}
        self._all_gone = trio.Event()
        self._all_gone.set()

    def new_handler(self, transport: asyncio.BaseTransport) -> ServerHandler:
        return ServerHandler(
            self._mapping,
            self._codec,
            self._status_details_codec,
            self.__dispatch__,
            self.state,
            self.config.transport.concurrent_streams,
            identity_of(transport),
            str((transport.get_extra_info("peername") or ("unknown",))[0]),
        )

    def admit(self, protocol: ServerProtocol) -> bool:
        admitted = not self.state.stopping and self._has_room()
        if admitted:
            self.state.counters.connections += 1
        else:
            self.state.counters.connections_refused += 1
            _logger.warning("connection refused: too many are open", open=len(self._protocols))
        # Those sent away are waited for as well when the server stops.
        self._protocols[protocol] = None
        self.state.counters.connections_open = len(self._protocols)
        if self._all_gone.is_set():
            self._all_gone = trio.Event()
        return admitted

    def _has_room(self) -> bool:
        """Tell whether there is room for one more connection, or make some: an idle one goes for it."""
        if len(self._protocols) < self.config.max_connections:
            return True
        idle = [each for each in self._protocols if each.handler.is_idle and not each.connection.is_closing()]
        if not idle:
            return False
        # One that never spoke HTTP/2, else one without an identity; of several the one that is silent for longest.
        goes = min(
            idle,
            key=lambda each: (
                each.connection.watch.has_greeted,
                each.handler.identity.subject is not None,
                each.connection.watch.last_received,
            ),
        )
        self.state.counters.connections_evicted += 1
        goes.say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM, b"too many connections, and this one was idle")
        goes.connection.abort("too many connections, and this one was idle")
        return True

    def withdraw_lost_rights(self) -> None:
        """Close the connections of clients that are in the middle of what they are no longer allowed to do."""
        boundary = self.state.errors.boundary(Where.RPC_CONNECTION)
        for protocol in list(self._protocols):
            with boundary:
                if protocol.handler.has_lost_rights():
                    self._withdraw(protocol)
            if boundary.failed:
                # It is not known what this client may do, so it may do nothing.
                protocol.connection.abort("rights could not be told")

    def _withdraw(self, protocol: ServerProtocol) -> None:
        if self.state.gate is not None:
            self.state.gate.counters.connections_withdrawn += 1
        _logger.warning("connection closed: rights were withdrawn", subject=protocol.handler.identity.subject)
        protocol.say_goodbye(ErrorCodes.NO_ERROR, b"rights were withdrawn")

    def forget(self, protocol: ServerProtocol) -> None:
        self._protocols.pop(protocol, None)
        self.state.counters.connections_open = len(self._protocols)
        if not self._protocols:
            self._all_gone.set()

    async def stop(self) -> None:
        """End all calls, then all connections: each step has its own bound, together well under 5 s."""
        self.state.stopping = True
        self._health.set(False)
        with trio.move_on_after(self.config.drain_seconds):
            async with trio.open_nursery() as nursery:
                for service in self.services:
                    if isinstance(service, Draining):
                        nursery.start_soon(self._finish, service.drain)
        handlers = [protocol.handler for protocol in self._protocols]
        boundary = self.state.errors.boundary(Where.STOPPING)
        for handler in handlers:
            with boundary:
                handler.close()
        with trio.move_on_after(self.config.stop_seconds):
            async with trio.open_nursery() as nursery:
                for handler in handlers:
                    nursery.start_soon(self._finish, handler.wait_closed)
        # GOAWAY comes last: a client on h2, as Python's are, reads nothing after it, and would lose the answers above.
        for protocol in list(self._protocols):
            with boundary:
                protocol.say_goodbye(ErrorCodes.NO_ERROR, b"the node is stopping")
        with trio.move_on_after(_GOODBYE_SECONDS):
            await self._all_gone.wait()
        for protocol in list(self._protocols):
            with boundary:
                protocol.connection.abort("the node is stopping")
        with trio.move_on_after(_ABORT_SECONDS):
            await self._all_gone.wait()
        if self._protocols:
            _logger.error("connections could not be closed", count=len(self._protocols))

    async def _finish(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do one step of stopping (asyncio flavour); one that fails does not keep the others from being done."""
        with self.state.errors.boundary(Where.STOPPING):
            await aio_as_trio(step)()


async def serve(
    services: Sequence[Service],
    host: str,
    port: int,
    *,
    config: ServerConfig | None = None,
    counters: ServerCounters | None = None,
    security: ServerSecurity | None = None,
    errors: InternalErrors | None = None,
    cluster_name: str | None = None,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then stop cleanly: nothing is left of it when this returns.

    Health (grpc.health.v1) and reflection (v1 and v1alpha) are served besides the services. Opens an asyncio loop
    (trio-asyncio) if none is running in this task. To stop, services that can (see Draining) finish what they have
    accepted; what is left is cancelled and answered with UNAVAILABLE; then every connection is sent GOAWAY and closed.

    Args:
        services: what to serve.
        host: where to listen; every address that the name stands for.
        port: where to listen; 0: one that the operating system chooses.
        config: see ServerConfig.
        counters: where to count; see ServerCounters.
        security: TLS and who may do what; None: no TLS, and every client may do everything.
        errors: where unforeseen errors of requests and connections are counted.
        cluster_name: said with every answer; requests that are meant for another cluster are refused. None: of none.
        task_status: is given the bound host and port once connections are accepted.

    Raises:
        AddressUnavailable: the address cannot be listened at; AddressInUse if that is because another process does.
    """
    config = config or ServerConfig()
    errors = errors if errors is not None else InternalErrors()
    async with asyncio_loop(errors) as loop:
        counters = counters or ServerCounters()
        server = _Server(services, config, counters, None if security is None else security.gate, errors, cluster_name)
        if security is not None and security.gate is not None and isinstance(security.gate.policy, FromFiles):
            security.gate.policy.on_change(server.withdraw_lost_rights)
        sockets = await open_listening_sockets(host, port, config.backlog)
        acceptor = Acceptor(
            loop,
            lambda: ServerProtocol(server),
            None if security is None else lambda: security.tls.value.context,
            config.max_handshakes,
            config.transport.handshake_seconds,
            counters,
            errors,
        )
        try:
            async with trio.open_nursery() as nursery:
                for listening in sockets:
                    nursery.start_soon(acceptor.run, listening, nursery)
                bound_host, bound_port = sockets[0].getsockname()[:2]
                _logger.info("listening", host=bound_host, port=bound_port, tls=security is not None)
                task_status.started((bound_host, bound_port))
        finally:
            for listening in sockets:
                listening.close()
            with trio.CancelScope(shield=True):
                await server.stop()
