"""Serving figures to Prometheus: GET /metrics over plain HTTP/1.1, one request a connection."""

from __future__ import annotations

from collections.abc import Sequence

import h11
import structlog
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from .address import Address
from .errors import AddressUnavailable

PATH = b"/metrics"
MOST_CONNECTIONS = 16
REQUEST_SECONDS = 10.0
_RECEIVE_BYTES = 16 * 1024
_LONGEST_HEAD_BYTES = 16 * 1024

_logger = structlog.get_logger(__name__)


async def serve_metrics(
    registry: CollectorRegistry,
    address: Address,
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve figures until cancelled.

    Args:
        registry: gives them.
        address: where to listen; port 0: one that the operating system chooses.
        task_status: is given the bound address once connections are accepted.

    Raises:
        AddressUnavailable: nobody can listen there, or another process does.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise AddressUnavailable(f"cannot serve metrics on {address}: {error}") from None
    limiter = trio.CapacityLimiter(MOST_CONNECTIONS)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            limiter.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.move_on_after(REQUEST_SECONDS):
                async with stream:
                    await _answer(stream, registry)
        except trio.BrokenResourceError as error:
            _logger.debug("a request for metrics ended early", reason=str(error))
        finally:
            limiter.release_on_behalf_of(stream)

    bound = Address(address.host, listeners[0].socket.getsockname()[1])
    _logger.info("serving metrics", url=f"http://{bound}{PATH.decode()}")
    async with trio.open_nursery() as nursery:
        # The listeners are closed with the nursery; further addresses of a name are on ports of their own with port 0.
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        task_status.started(bound)


async def _answer(stream: trio.SocketStream, registry: CollectorRegistry) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD_BYTES)
    try:
        request = await _request(stream, connection)
    except h11.RemoteProtocolError as error:
        await _send(stream, connection, error.error_status_hint, b"text/plain", f"{error}\n".encode())
        return
    if request is None:
        return
    if request.target.partition(b"?")[0] != PATH:
        await _send(stream, connection, 404, b"text/plain", b"there is /metrics\n")
    elif request.method != b"GET":
        await _send(stream, connection, 405, b"text/plain", b"only GET\n", [(b"allow", b"GET")])
    else:
        accept = b",".join(value for name, value in request.headers if name == b"accept").decode("latin-1")
        encode, content_type = choose_encoder(accept)
        await _send(stream, connection, 200, content_type.encode(), encode(registry))


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await stream.receive_some(_RECEIVE_BYTES))


async def _send(
    stream: trio.SocketStream,
    connection: h11.Connection,
    status: int,
    content_type: bytes,
    body: bytes,
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *extra,
    ]
    response = h11.Response(status_code=status, headers=headers)
    parts = [connection.send(response), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage())]
    await stream.send_all(b"".join(part for part in parts if part))
