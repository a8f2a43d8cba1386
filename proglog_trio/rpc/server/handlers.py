"""What stands between HTTP/2 streams and the methods of the services.

One place through which every request of a server goes: it counts, turns requests away while the server stops, and gives
every error its gRPC status.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from attrs import Factory, define
from grpclib.const import Handler, Status
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.events import SendInitialMetadata, SendTrailingMetadata, _DispatchServerEvents
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline, decode_metadata, encode_bin_value
from grpclib.protocol import Stream as ProtocolStream
from grpclib.server import Handler as GrpclibHandler
from grpclib.server import Stream
from h2.exceptions import H2Error

from proglog_trio.errors import ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.connection import TunedStream, status_headers
from proglog_trio.rpc.messages.cluster_names import CLUSTER_KEY, decode_name, encode_name, other_cluster
from proglog_trio.rpc.messages.status import grpc_error
from proglog_trio.rpc.server.authorization import Gate, requirement_of
from proglog_trio.rpc.server.denial_log import DenialLog
from proglog_trio.rpc.server.identity import Identity

Method = Callable[[Stream[Any, Any]], Awaitable[None]]
_UNFINISHED_PER_STREAM = 4
_TIMEOUT = re.compile("[0-9]{1,8}[HMSmun]")
_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_GIVING_WAY = frozenset({"/log.v1.Log/WatchServers"})
"""What does not keep a connection from being idle: who watches has other nodes to watch at."""
_MAX_LOGGED = 128
"""So much of the name that a client gives is logged."""


class Service(Protocol):
    """A service as grpclib knows it: its methods by their paths."""

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods."""


@define
class ServerCounters:
    """What a server has accepted and refused since it began.

    Attributes:
        connections: connections that were accepted.
        connections_open: connections that there are now.
        connections_refused: connections above the limit.
        connections_evicted: idle connections that were closed above the limit, to make room for a new one.
        handshakes_failed: connections that did not get through the TLS handshake.
        accept_failures: how often the system had nothing left to accept a connection with.
        requests: requests that were passed on to a service.
        requests_open: requests, streams among them, that a service is at work on now.
        requests_turned_away: requests that came while the server was stopping, with a deadline that had passed, for a
            method that is not known, with headers that cannot be accepted, or from a client that may not make them.
        requests_for_other_clusters: requests of clients that mean another cluster; nothing was done for them.
        requests_failed: requests that ended with a status other than OK.
        messages_refused: messages that were too long, compressed or cut off.
    """

    connections: int = 0
    connections_open: int = 0
    connections_refused: int = 0
    connections_evicted: int = 0
    handshakes_failed: int = 0
    accept_failures: int = 0
    requests: int = 0
    requests_open: int = 0
    requests_turned_away: int = 0
    requests_for_other_clusters: int = 0
    requests_failed: int = 0
    messages_refused: int = 0

    def message_refused(self) -> None:
        """Count one refused message."""
        self.messages_refused += 1

    def request_refused(self) -> None:
        """Count one request whose headers cannot be accepted."""
        self.requests_turned_away += 1


@define
class ServerState:
    """What the connections of one server share.

    Attributes:
        counters: see ServerCounters.
        gate: decides which requests may pass; None: all may.
        stopping: the server accepts no more requests. It stays so.
        errors: where unforeseen errors of requests and connections are counted.
        cluster_name: of the node; None: it is of none, and accepts every request.
    """

    counters: ServerCounters
    gate: Gate | None = None
    stopping: bool = False
    errors: InternalErrors = Factory(InternalErrors)
    cluster_name: str | None = None
    _strays: DenialLog = Factory(DenialLog)

    def cluster_refusal(self, headers: Mapping[str, str], peer: str) -> GRPCError | None:
        """Return what a request is answered with whose client means another cluster; None: it does not."""
        asked = headers.get(CLUSTER_KEY)
        if asked is None or self.cluster_name is None:
            return None
        name = decode_name(asked)
        if name == self.cluster_name:
            return None
        self.counters.requests_for_other_clusters += 1
        self._strays.tell("a client of another cluster was turned away", peer=peer, cluster=name[:_MAX_LOGGED])
        return other_cluster(name, self.cluster_name)

    async def say_cluster(self, event: SendInitialMetadata | SendTrailingMetadata) -> None:
        """Say with an answer of which cluster this node is (a listener of grpclib)."""
        if self.cluster_name is not None:
            event.metadata[CLUSTER_KEY] = encode_name(self.cluster_name)

    def answer_headers(self, error: GRPCError) -> list[tuple[str, str]]:
        """Return the headers of an answer that is nothing but an error."""
        headers = status_headers(error.status, error.message or "")
        if error.details is not None:
            details = ProtoStatusDetailsCodec().encode(error.status, error.message, error.details)
            headers.append((_STATUS_DETAILS_KEY, encode_bin_value(details).decode("ascii")))
        if self.cluster_name is not None:
            headers.append((CLUSTER_KEY, encode_name(self.cluster_name)))
        return headers


def guarded(method: Method, state: ServerState) -> Method:
    """Return a service's method with every error turned into the gRPC status that a client understands."""

    async def call(stream: Stream[Any, Any]) -> None:
        state.counters.requests += 1
        state.counters.requests_open += 1
        try:
            await method(stream)
        except asyncio.CancelledError:
            if not state.stopping or not stream._stream.closable:  # noqa: SLF001 - whether the client can still be told
                raise
            state.counters.requests_failed += 1
            raise stopping_error() from None
        except Exception as raised:
            state.counters.requests_failed += 1
            for unforeseen in _unforeseen(raised):
                state.errors.note(Where.RPC_REQUEST, unforeseen)
            error = _first_cause(raised)
            if isinstance(error, StreamTerminatedError | H2Error | TimeoutError):
                # grpclib's own business: the client has gone, or its deadline has passed
                if _is_cancelled() or not stream._stream.closable:  # noqa: SLF001 - as above
                    # by grpclib for that same reason, or it will be once it hears that the connection has ended; it
                    # logs any other end as a failure
                    raise asyncio.CancelledError from None
                raise error from None
            raise _status_error(error) from raised
        finally:
            state.counters.requests_open -= 1

    return call


def stopping_error() -> GRPCError:
    """Return what a call that cannot go on is answered with while the server stops."""
    return GRPCError(Status.UNAVAILABLE, "the node is stopping")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _first_cause(error: Exception) -> Exception:
    """Return the error inside a task group's: the first is the cause, the rest was cancelled by it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _unforeseen(error: Exception) -> Iterator[Exception]:
    """Yield what was not foreseen, of a task group's errors each."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _unforeseen(each)
    elif not isinstance(error, GRPCError | ProglogError | StreamTerminatedError | H2Error | TimeoutError):
        yield error


def _status_error(error: Exception) -> GRPCError:
    if isinstance(error, GRPCError):
        return error
    if isinstance(error, ProglogError):
        return grpc_error(error)
    # Its text is for the log: it may say what is no client's business.
    return GRPCError(Status.INTERNAL, f"internal error: {type(error).__name__}")


def _problem_of(headers: list[tuple[str, str]]) -> str | None:
    """Return what grpclib would fail at in a request's headers, in words; None: nothing."""
    binary = []
    for name, value in headers:
        # grpclib takes more digits than the protocol has, more than a clock can count.
        if name == "grpc-timeout" and not _TIMEOUT.fullmatch(value):
            return f"the grpc-timeout {value[:32]!r} is not at most 8 digits and a unit of H, M, S, m, u or n"
        if name.endswith("-bin"):
            binary.append((name, value))
    try:
        decode_metadata(binary)
    except ValueError as error:
        return f"the value of a binary metadata key is no base64: {error}"
    return None


class ServerHandler(GrpclibHandler):
    """Handles the requests of one connection.

    Args:
        mapping: the guarded methods by their paths.
        codec, status_details_codec, dispatch: grpclib's.
        state: the server's.
        concurrent_streams: how many streams the connection may have open.
        identity: of the client; it stays the same for as long as the connection.
        peer: the client's address, for the log.
    """

    def __init__(
        self,
        mapping: dict[str, Handler],
        codec: CodecBase,
        status_details_codec: StatusDetailsCodecBase,
        dispatch: _DispatchServerEvents,
        state: ServerState,
        concurrent_streams: int,
        identity: Identity,
        peer: str,
    ) -> None:
        super().__init__(mapping, codec, status_details_codec, dispatch)
        self._state = state
        self._max_unfinished = concurrent_streams * _UNFINISHED_PER_STREAM
        # Of each request that is being handled; whatever ends one pops it, so an empty one means an idle client.
        self._paths: dict[ProtocolStream, str] = {}
        self.identity = identity
        self.peer = peer

    @property
    def is_idle(self) -> bool:
        """Whether no request is being handled, but for such as give way where there are too many connections."""
        return _GIVING_WAY.issuperset(self._paths.values())

    def has_lost_rights(self) -> bool:
        """Tell whether a request is being handled that the client would no longer be allowed to make."""
        gate, subject = self._state.gate, self.identity.subject
        if gate is None or subject is None:
            return False
        return not all(gate.permits(path, subject) for path in set(self._paths.values()))

    def accept(self, stream: ProtocolStream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]) -> None:
        """Begin to handle a request, or turn it away; what fails here is this request's end, not the connection's."""
        boundary = self._state.errors.boundary(Where.RPC_REQUEST, peer=self.peer)
        with boundary:
            self._accept(stream, headers, release_stream)
        if boundary.failed and stream not in self._tasks:
            # Otherwise its task has begun, and answers and releases it.
            self._paths.pop(stream, None)
            self._turn_away(stream, release_stream, GRPCError(Status.INTERNAL, "internal error"))

    def _accept(
        self, stream: ProtocolStream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        fields = dict(headers)
        path = fields.get(":path", "")
        refusal = self._refusal(path, fields, headers)
        if refusal is not None:
            self._turn_away(stream, release_stream, refusal)
            return
        released = False

        def release_once() -> None:
            nonlocal released
            if not released:
                released = True
                self._paths.pop(stream, None)
                release_stream()

        self._paths[stream] = path
        super().accept(stream, headers, release_once)
        # grpclib's handler releases the stream itself, unless it is cancelled before its first step.
        self._tasks[stream].add_done_callback(lambda _: release_once())

    def _refusal(self, path: str, fields: Mapping[str, str], headers: list[tuple[str, str]]) -> GRPCError | None:
        """Return what a request is turned away with; None: it may pass."""
        if self._state.stopping:
            return stopping_error()
        refusal = self._state.cluster_refusal(fields, self.peer)
        if refusal is not None:
            # Before its identity is looked at: a client that strays here has its rights elsewhere.
            return refusal
        refusal = None if self._state.gate is None else self._state.gate.refusal(path, self.identity, self.peer)
        # To a client with an identity, a method that is not known is just that; others learn nothing of methods.
        unknown = path not in self.mapping and requirement_of(path) is None
        if refusal is not None and (not unknown or refusal.status is Status.UNAUTHENTICATED):
            return refusal
        if path not in self.mapping:
            # grpclib's own answer has no content type, which its clients do not understand.
            return GRPCError(Status.UNIMPLEMENTED, f"the method {path} is not known")
        problem = _problem_of(headers)
        if problem is not None:
            return GRPCError(Status.INVALID_ARGUMENT, problem)
        deadline = Deadline.from_headers(headers)
        if deadline is not None and not deadline.time_remaining():
            return GRPCError(Status.DEADLINE_EXCEEDED, "the deadline had passed when the request arrived")
        return None

    def cancel(self, stream: ProtocolStream) -> None:
        """Cancel the handler of a stream that the client has reset."""
        if stream not in self._tasks:
            return
        super().cancel(stream)
        if len(self._cancelled) > self._max_unfinished:
            self.__gc_collect__()
            if len(self._cancelled) > self._max_unfinished and isinstance(stream, TunedStream):
                # Streams are reset faster than their handlers can end (CVE-2023-44487).
                stream.connection.abort("too many streams were reset")

    def close(self) -> None:
        """Cancel all handlers, those of streams that were reset before too.

        grpclib makes an error of that reset and answers it: where the client reads nothing, the handler waits to write,
        and when the connection has ended as well, nothing else would wake it up.
        """
        reset_before = list(self._cancelled)
        super().close()
        for task in reset_before:
            task.cancel()

    def _turn_away(self, stream: ProtocolStream, release_stream: Callable[[], Any], error: GRPCError) -> None:
        self._state.counters.requests_turned_away += 1
        if not isinstance(stream, TunedStream):
            raise TypeError(f"a stream of type {type(stream).__name__} came from another transport")
        stream.answer_with_trailers(self._state.answer_headers(error))
        release_stream()
