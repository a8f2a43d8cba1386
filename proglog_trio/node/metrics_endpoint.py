"""Serving figures to Prometheus: GET and HEAD /metrics over plain HTTP/1.1, one request a connection."""

from __future__ import annotations

import h11
import structlog
import trio
from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proglog_trio.accepting import accept_streams
from proglog_trio.address import Address
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.unavailable import unavailable
from proglog_trio.units import KIBIBYTE, MEBIBYTE

PATH = b"/metrics"
MAX_CONNECTIONS = 16
"""For one more, the oldest is ended: a scrape needs milliseconds."""
REQUEST_SECONDS = 10.0
"""For a request's head to arrive."""
ANSWER_SECONDS = 10.0
LINGER_SECONDS = 1.0
_LINGER_BYTES = MEBIBYTE
_RECEIVE_BYTES = 16 * KIBIBYTE
_LONGEST_HEAD_BYTES = 16 * KIBIBYTE
_METHODS = b"GET, HEAD"
_TEXT = b"text/plain; charset=utf-8"

_logger = structlog.get_logger(__name__)


@frozen
class _Answer:
    """What is said to a request.

    Attributes:
        body: is not sent to a HEAD, but its length is.
    """

    status: int
    body: bytes
    content_type: bytes = _TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def serve_metrics(
    registry: CollectorRegistry,
    address: Address,
    errors: InternalErrors,
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve figures until cancelled.

    Args:
        registry: gives them.
        address: where to listen; port 0: one that the operating system chooses.
        errors: where a request that fails unexpectedly is counted.
        task_status: is given the bound address once connections are accepted.

    Raises:
        AddressUnavailable: the address cannot be listened at, or another process does.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"cannot serve metrics on {address}", error) from None
    # In the order in which they were accepted.
    served: dict[trio.CancelScope, None] = {}

    async def serve(stream: trio.SocketStream) -> None:
        while len(served) >= MAX_CONNECTIONS:
            oldest = next(iter(served))
            # Here already, so that two streams that are accepted in one turn end two others.
            del served[oldest]
            oldest.cancel()
        try:
            with trio.CancelScope() as scope:
                served[scope] = None
                await _serve(stream, registry, errors)
        except trio.BrokenResourceError as error:
            _logger.debug("a request for metrics ended early", reason=str(error))
        finally:
            served.pop(scope, None)

    bound = Address(address.host, listeners[0].socket.getsockname()[1])
    _logger.info("serving metrics", url=f"http://{bound}{PATH.decode()}")
    try:
        async with trio.open_nursery() as nursery:
            # Further addresses of a name are on ports of their own with port 0.
            for listener in listeners:
                nursery.start_soon(accept_streams, listener, serve, errors, Where.METRICS_REQUEST)
            task_status.started(bound)
    finally:
        for listener in listeners:
            listener.socket.close()


async def _serve(stream: trio.SocketStream, registry: CollectorRegistry, errors: InternalErrors) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD_BYTES)
    answer: _Answer | None = None
    is_head = False
    try:
        with trio.move_on_after(REQUEST_SECONDS) as scope:
            request = await _request(stream, connection)
            if request is None:
                return
            is_head = request.method == b"HEAD"
            # What fails unexpectedly fails here, where the client can still be told.
            with errors.boundary(Where.METRICS_REQUEST):
                answer = _answer(request, registry)
            answer = answer or _Answer(500, b"internal error\n")
    except h11.RemoteProtocolError as error:
        answer = _Answer(error.error_status_hint, f"{error}\n".encode())
    if scope.cancelled_caught:
        if not connection.trailing_data[0]:
            return  # it asked for nothing
        answer = _Answer(408, b"the request took too long\n")
    if answer is not None:
        with trio.move_on_after(ANSWER_SECONDS):
            await stream.send_all(_encoded(connection, answer, with_body=not is_head))
            await stream.send_eof()
            await _linger(stream)


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """Return the head of a request; None: the connection ended before there was one."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await stream.receive_some(_RECEIVE_BYTES))


def _answer(request: h11.Request, registry: CollectorRegistry) -> _Answer:
    if _path(request.target) != PATH:
        return _Answer(404, b"there is /metrics\n")
    if request.method not in (b"GET", b"HEAD"):
        return _Answer(405, b"only GET and HEAD\n", headers=((b"allow", _METHODS),))
    accept = b",".join(value for name, value in request.headers if name == b"accept").decode("latin-1")
    encode, content_type = choose_encoder(accept)
    return _Answer(200, encode(registry), content_type.encode())


def _path(target: bytes) -> bytes:
    """Return the path of a request's target, which may be a whole URL (RFC 9112, section 3.2.2)."""
    scheme, is_url, rest = target.partition(b"://")
    if is_url and scheme.lower() == b"http":
        target = b"/" + rest.partition(b"/")[2]
    return target.partition(b"?")[0]


def _encoded(connection: h11.Connection, answer: _Answer, *, with_body: bool) -> bytes:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"connection", b"close"),
        *answer.headers,
    ]
    events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
    if with_body:
        events.append(h11.Data(data=answer.body))
    events.append(h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


async def _linger(stream: trio.SocketStream) -> None:
    """Read what the other side still sends, for a while: with unread data a close resets, and takes the answer away."""
    left = _LINGER_BYTES
    with trio.move_on_after(LINGER_SECONDS):
        while left > 0 and (data := await stream.receive_some(_RECEIVE_BYTES)):
            left -= len(data)
