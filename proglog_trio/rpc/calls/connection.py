"""One connection to a node: a tuned grpclib channel, for a block under Trio or asyncio.

asyncio code that uses the channel is entered once, by Connection.run, and stays on the asyncio side until it is done:
grpclib's calls must not be spread over both sides (a cancelled scope would leave their streams open).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar, TypeVarTuple

import anyio
from attrs import field, frozen, validators
from grpclib.client import Channel
from grpclib.client import Handler as ClientHandler
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from proglog_trio.address import Address
from proglog_trio.errors import CallFailed, ConnectionLost, ConnectionNotOpened, NodeConnectionError
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.rpc.calls.expected_cluster import check_error, watch
from proglog_trio.rpc.calls.sessions import ExpectedCluster
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop, run_asyncio
from proglog_trio.rpc.http2.connection import abort_transport
from proglog_trio.rpc.http2.transport import TunedProtocol
from proglog_trio.rpc.http2.transport_config import TransportConfig, grpclib_configuration
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.security.tls import ClientTls
from proglog_trio.security.tls_problems import NO_TLS, tls_problem, unaccepted

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@frozen(kw_only=True)
class ConnectionConfig:
    """How a client connects.

    Attributes:
        transport: limits and keepalive; a node that does not answer a PING is given up.
        connect_timeout: seconds for the TCP connection and the TLS handshake.
        tls: the certificates; None: no TLS.
        errors: where an error of ours on a connection is counted.
        max_rest_bytes: of one answer beside its long values; a client has no others that it keeps waiting, a node that
            pulls has.
        cluster: what the node must be of; its calls raise OtherCluster otherwise. None: of any.
    """

    transport: TransportConfig = field(factory=TransportConfig)
    connect_timeout: float = field(default=10.0, validator=validators.gt(0))
    tls: ClientTls | None = None
    errors: InternalErrors = field(factory=InternalErrors, eq=False)
    max_rest_bytes: int = 4 * 1024 * 1024
    cluster: ExpectedCluster | None = field(default=None, eq=False)


class TunedChannel(Channel):
    """A grpclib channel over one connection: it connects once, and never again by itself.

    Its user decides what a lost connection means; a silent reconnection would leave a stream's place behind.
    """

    def __init__(self, host: str, port: int, config: ConnectionConfig) -> None:
        tls = config.tls
        super().__init__(
            host,
            port,
            # None: the host that is dialled
            config=grpclib_configuration(server_name=tls.server_name if tls is not None else None),
            ssl=None if tls is None else tls.context(),
            codec=MessageCodec(config.max_rest_bytes),
            status_details_codec=ProtoStatusDetailsCodec(),
        )
        if config.cluster is not None:
            watch(config.cluster, self, f"{host}:{port}")
        self._connection_config = config
        # From open until abort, also when the connection has been lost meanwhile: it knows why.
        self._tuned_protocol: TunedProtocol | None = None

    def _protocol_factory(self) -> TunedProtocol:
        return TunedProtocol(
            lambda _transport: ClientHandler(),
            self._config,
            self._h2_config,
            transport_config=self._connection_config.transport,
            errors=self._connection_config.errors,
        )

    async def open(self, hosts: Sequence[str]) -> None:
        """Connect to the first of these addresses that accepts it (asyncio flavour).

        Args:
            hosts: numeric addresses that the channel's host stands for.

        Raises:
            OSError: none does.
        """
        problems: list[OSError] = []
        # None: no TLS. Otherwise the certificate must be for the name, not for the number that it stands for.
        server_name = None if self._ssl is None else self._config.ssl_target_name_override or self._host
        if server_name is not None:
            # The dot of a name that is looked up as it stands (RFC 1034, 3.1) is not in certificates.
            server_name = server_name.removesuffix(".")
        for host in hosts:
            try:
                _, self._tuned_protocol = await self._loop.create_connection(
                    self._protocol_factory, host, self._port, ssl=self._ssl, server_hostname=server_name
                )
            except OSError as error:
                problems.append(error)
            else:
                self._protocol = self._tuned_protocol
                return
        if len(problems) == 1:
            raise problems[0]
        raise OSError("; ".join(f"{host}: {_why(error)}" for host, error in zip(hosts, problems, strict=True)))

    async def __connect__(self) -> TunedProtocol:
        """Return the open connection for one more call; grpclib's name for it."""
        protocol = self._tuned_protocol
        if protocol is None:
            raise ConnectionNotOpened(f"the channel to {self._authority} is not open")
        if protocol.handler.connection_lost:  # type: ignore[attr-defined]  # the client's handler has it
            # In the words of one that is lost in a call: which of the two it is, is chance, and a peer's problem is
            # logged when it changes.
            raise connection_lost(self._authority, self.lost_reason or "closed by the node")
        return protocol

    @property
    def lost_reason(self) -> str | None:
        """Why the connection was given up, if we did it or know it."""
        protocol, tls = self._tuned_protocol, self._connection_config.tls
        if protocol is None:
            return None
        connection = protocol.connection
        if connection.watch.has_greeted:
            return connection.lost_reason
        if tls is None and connection.is_tls:
            return "the node speaks TLS, and this client does not: give it the authority of the node's certificate"
        if tls is None and connection.lost_reason is None:
            return "the node ended it before HTTP/2 began, as one that has TLS does when a client has none"
        if connection.lost_reason is None and tls is not None:
            # In TLS 1.3 a client is done before the server has looked at its certificate, and what the server says of
            # it may be lost with the connection.
            shown = "shows no certificate" if tls.certificate is None else "shows a certificate that it does not accept"
            return f"the node ended it before HTTP/2 began, as it does when a client {shown}"
        return connection.lost_reason

    def ask_for_life(self, seconds: float, because: str) -> None:
        """Drop the connection if nothing comes from the node within so many seconds; see PeerWatch.ask_now."""
        if self._tuned_protocol is not None:
            self._tuned_protocol.connection.watch.ask_now(seconds, because)

    def abort(self) -> None:
        """Close the connection and drop what was not sent: a node that has stopped reading would hold it for ever."""
        protocol, self._tuned_protocol = self._tuned_protocol, None
        self.close()
        if protocol is not None:
            abort_transport(protocol.connection.transport)


@frozen
class Connection:
    """An open connection to a node.

    Attributes:
        address: as given.
        channel: for use by asyncio code inside run.
        cluster: see ConnectionConfig.
    """

    address: str
    channel: TunedChannel
    cluster: ExpectedCluster | None = None

    async def run(
        self, function: Callable[[TunedChannel, *Arguments], Coroutine[Any, Any, Result]], *arguments: *Arguments
    ) -> Result:
        """Run an asyncio function on the channel and return its result; see run_asyncio for what cancels it.

        Raises:
            ConnectionLost: the connection ended meanwhile.
            CallFailed: the node answered with a status other than OK.
            OtherCluster: the node is of another cluster than the configuration says.
        """
        try:
            return await run_asyncio(function, self.channel, *arguments)
        except (GRPCError, StreamTerminatedError, H2Error, OSError) as error:
            if isinstance(error, GRPCError) and self.cluster is not None:
                # What a node that refuses says with its answer is not always seen before the stream's end is.
                check_error(self.cluster, error, self.address)
            raise call_error(error, self.address, self.channel) from error


def call_error(
    error: GRPCError | StreamTerminatedError | H2Error | OSError, address: str, channel: TunedChannel | None = None
) -> CallFailed | NodeConnectionError:
    """Return our own error for one that grpclib raises in the middle of a call."""
    if isinstance(error, GRPCError):
        return CallFailed(error.status.value, error.status.name, error.message or "", tuple(error.details or ()))
    reason = (channel and channel.lost_reason) or str(error) or type(error).__name__
    return connection_lost(address, reason)


def connection_lost(address: str, reason: str) -> ConnectionLost:
    """Return the error of a connection that is no more."""
    return ConnectionLost(f"the connection to {address} was lost: {reason}")


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the node's certificate is not accepted: {unaccepted(error)}"
    if isinstance(error, ssl.SSLError):
        problem = tls_problem(error)
        return "the node does not speak TLS: leave out certificates and authorities" if problem == NO_TLS else problem
    return error.strerror or str(error)


async def _addresses_of(dialled: Address) -> list[str]:
    """Return the numeric addresses that a host stands for.

    Not by grpclib's way, in which a cancelled look-up is waited for, as long as the system's resolver likes.

    Raises:
        OSError: it stands for none.
    """
    host, port, kind = dialled.host, dialled.port, socket.SOCK_STREAM
    try:
        try:
            # A number needs no thread.
            numbers = [each[4][0] for each in socket.getaddrinfo(host, port, 0, kind, 0, socket.AI_NUMERICHOST)]
        except (socket.gaierror, UnicodeError):
            numbers = [each[4][0] for each in await anyio.getaddrinfo(host, port, type=kind)]
    except UnicodeError as error:
        raise OSError(f"{dialled.host!r} is no host name") from error
    return list(dict.fromkeys(map(str, numbers)))


@contextlib.asynccontextmanager
async def open_connection(address: str, config: ConnectionConfig | None = None) -> AsyncIterator[Connection]:
    """Connect to a node, for the length of an ``async with`` block.

    Under Trio it opens an asyncio loop (trio-asyncio) if none is running in this task.

    Args:
        address: "host:port".
        config: see ConnectionConfig.

    Raises:
        ValueError: the address is not one.
        ConnectionNotOpened: no node answers there, or not within the time, or with a certificate that is not accepted.
        TlsError: the files of the TLS configuration cannot be used.
    """
    dialled = Address.parse(address)
    config = config or ConnectionConfig()
    async with asyncio_loop():
        channel = TunedChannel(dialled.host, dialled.port, config)
        try:
            try:
                # Not what raises TimeoutError, which the system's own error of that name could be taken for.
                with anyio.move_on_after(config.connect_timeout) as scope:
                    hosts = await _addresses_of(dialled)
                    await run_asyncio(channel.open, hosts)
            except UnicodeError as error:
                raise ConnectionNotOpened(f"cannot connect to {address}: it is no host name") from error
            except OSError as error:
                raise ConnectionNotOpened(f"cannot connect to {address}: {_why(error)}") from error
            if scope.cancelled_caught:
                raise ConnectionNotOpened(f"{address} did not answer within {config.connect_timeout:g} s")
            yield Connection(address, channel, config.cluster)
        finally:
            channel.abort()
