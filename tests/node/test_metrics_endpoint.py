from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from attrs import define, field
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from trio.testing import MockClock, wait_all_tasks_blocked

from proglog_trio import accepting
from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.node.metrics_endpoint import MAX_CONNECTIONS, REQUEST_SECONDS, serve_metrics


@define(eq=False)
class Failing(Collector):
    """A collector that fails while it is told to."""

    fails: bool = True

    def collect(self) -> Iterator[Metric]:
        if self.fails:
            raise RuntimeError("unforeseen")
        yield from ()


@define(eq=False)
class Endpoint:
    address: Address
    registry: CollectorRegistry
    errors: InternalErrors = field(factory=InternalErrors)


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    registry = CollectorRegistry()
    Counter("proglog_test", "A test's.", registry=registry).inc(3)
    errors = InternalErrors()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_metrics, registry, Address("127.0.0.1", 0), errors)
        running = Endpoint(address, registry, errors)
        yield running
        # Whatever a test has done, the next one who asks is answered.
        status, _, body = await ask(running, GET)
        assert (status, b"proglog_test_total 3.0" in body) == (200, True)
        nursery.cancel_scope.cancel()


async def ask(running: Endpoint, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request and return the answer's status, headers and all that comes after them."""
    async with await trio.open_tcp_stream(running.address.host, running.address.port) as stream:
        with trio.fail_after(10):
            await stream.send_all(request)
            return parsed(b"".join([data async for data in stream]))


def parsed(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
    return int(first.split()[1]), headers, body


GET = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"


async def test_figures_are_served() -> None:
    async with endpoint() as running:
        status, headers, body = await ask(running, GET)
        assert status == 200
        assert b"proglog_test_total 3.0" in body
        assert headers[b"content-type"].startswith(b"text/plain")
        assert int(headers[b"content-length"]) == len(body)
        openmetrics = b"GET /metrics HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text\r\n\r\n"
        assert (await ask(running, openmetrics))[2].endswith(b"# EOF\n")


async def test_a_head_is_answered_with_the_head_of_a_get() -> None:
    async with endpoint() as running:
        status, headers, body = await ask(running, GET)
        assert await ask(running, GET.replace(b"GET", b"HEAD")) == (status, headers, b"")
        assert body
        assert (await ask(running, b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"))[::2] == (404, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics?name=a HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        (b"GET http://a/metrics HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\naccept: \xff\xfe,;q=x\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12", 200),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", 200),
        (GET * 100, 200),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n" + b"x" * 500_000, 405),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense", 405),
        (b"PUT /metrics HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"9" * 100 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\n\x00: b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 40_000, 431),
        (b"GET /" + b"y" * 400_000, 431),
    ],
)
async def test_any_request_gets_its_answer(request_bytes: bytes, status: int) -> None:
    async with endpoint() as running:
        answered, headers, body = await ask(running, request_bytes)
        assert answered == status
        assert int(headers[b"content-length"]) == len(body)
        assert headers[b"connection"] == b"close"
        assert headers.get(b"allow") == (b"GET, HEAD" if status == 405 else None)
        assert running.errors.total == 0


async def in_pieces(stream: trio.SocketStream) -> None:
    for place in range(len(GET)):
        await stream.send_all(GET[place : place + 1])
    assert parsed(await stream.receive_some())[0] == 200


async def nothing(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def half_a_request(stream: trio.SocketStream) -> None:
    await stream.send_all(GET[:20])
    await stream.send_eof()
    assert parsed(await stream.receive_some())[0] == 400


async def reset(stream: trio.SocketStream, sent: bytes) -> None:
    await stream.send_all(sent)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def reset_at_once(stream: trio.SocketStream) -> None:
    await reset(stream, b"")


async def reset_in_the_middle(stream: trio.SocketStream) -> None:
    await reset(stream, GET[:20])


async def reset_before_the_answer(stream: trio.SocketStream) -> None:
    await reset(stream, GET)


@pytest.mark.parametrize(
    "behave", [in_pieces, nothing, half_a_request, reset_at_once, reset_in_the_middle, reset_before_the_answer]
)
async def test_any_behaviour_of_one_is_no_matter_for_the_next(behave: Callable[[trio.SocketStream], object]) -> None:
    async with endpoint() as running:
        for _ in range(MAX_CONNECTIONS + 1):
            async with await trio.open_tcp_stream(running.address.host, running.address.port) as stream:
                with trio.fail_after(10):
                    await behave(stream)  # type: ignore[misc]  # all are coroutine functions
        assert running.errors.total == 0


@pytest.mark.parametrize(("sent", "status"), [(b"GET /metr", 408), (b"", None)])
async def test_a_slow_request_is_ended(sent: bytes, status: int | None, mock_clock: MockClock) -> None:
    async with endpoint() as running:
        async with await trio.open_tcp_stream(running.address.host, running.address.port) as stream:
            await stream.send_all(sent)
            await wait_all_tasks_blocked(0.02)
            mock_clock.jump(REQUEST_SECONDS)
            answer = b"".join([data async for data in stream])
        assert (parsed(answer)[0] if answer else None) == status


async def test_of_too_many_connections_the_oldest_is_ended() -> None:
    async with endpoint() as running:
        opened = [
            await trio.open_tcp_stream(running.address.host, running.address.port) for _ in range(MAX_CONNECTIONS + 1)
        ]
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            assert await opened[0].receive_some() == b""
        await opened[-1].send_all(GET)
        assert parsed(await opened[-1].receive_some())[0] == 200
        for stream in opened:
            await stream.aclose()


async def test_what_fails_is_said_counted_and_over(internal_errors: list[tuple[Where, Exception]]) -> None:
    async with endpoint() as running:
        failing = Failing(fails=False)
        running.registry.register(failing)
        failing.fails = True
        status, _, body = await ask(running, GET)
        assert (status, body) == (500, b"internal error\n")
        assert (await ask(running, GET.replace(b"GET", b"HEAD")))[::2] == (500, b"")
        assert running.errors.counts[Where.METRICS_REQUEST] == 2
        failing.fails = False
    assert [str(error) for _, error in internal_errors] == ["unforeseen"] * 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EBADMSG])
async def test_accepting_goes_on_after_an_error(
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    internal_errors: list[tuple[Where, Exception]],
) -> None:
    accept = trio.SocketListener.accept
    failures = 3

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(number, os.strerror(number))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    monkeypatch.setattr(accepting, "RETRY_SECONDS", 0.001)
    async with endpoint() as running:
        assert (await ask(running, GET))[0] == 200
    assert len(internal_errors) == (3 if number == errno.EBADMSG else 0)
    assert sum(os.strerror(number) in record.getMessage() for record in caplog.records) == 1


async def test_an_address_that_is_taken() -> None:
    async with endpoint() as running:
        with pytest.raises(AddressUnavailable, match=f"cannot serve metrics on {running.address}"):
            await serve_metrics(CollectorRegistry(), running.address, InternalErrors())
