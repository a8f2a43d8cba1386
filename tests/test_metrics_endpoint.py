from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from prometheus_client import CollectorRegistry, Counter

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable
from proglog_trio.metrics_endpoint import MOST_CONNECTIONS, serve_metrics


@asynccontextmanager
async def endpoint() -> AsyncIterator[Address]:
    registry = CollectorRegistry()
    Counter("proglog_test", "A test's.", registry=registry).inc(3)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_metrics, registry, Address("127.0.0.1", 0))
        nursery.cancel_scope.cancel()


async def ask(address: Address, request: bytes) -> tuple[int, str]:
    """Send a request and return the answer's status and all of its text."""
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        answer = b""
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            await stream.send_all(request)
            async for data in stream:
                answer += data
    return int(answer.split()[1]), answer.decode()


async def test_figures_are_served() -> None:
    async with endpoint() as address:
        status, text = await ask(address, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        assert status == 200
        assert "proglog_test_total 3.0" in text
        assert "content-type: text/plain" in text.lower()
        openmetrics = b"GET /metrics HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text\r\n\r\n"
        assert (await ask(address, openmetrics))[1].endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 40_000, 431),
        (b"\x16\x03\x01\r\n\r\n", 400),
    ],
)
async def test_anything_else_is_refused(request_bytes: bytes, status: int) -> None:
    async with endpoint() as address:
        assert (await ask(address, request_bytes))[0] == status


async def test_connections_are_bounded() -> None:
    async with endpoint() as address, trio.open_nursery() as nursery:
        opened = [await trio.open_tcp_stream(address.host, address.port) for _ in range(MOST_CONNECTIONS + 1)]
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            assert await opened[-1].receive_some() == b""
        for stream in opened:
            nursery.start_soon(stream.aclose)


async def test_an_address_that_is_taken() -> None:
    async with endpoint() as address:
        with pytest.raises(AddressUnavailable, match=f"cannot serve metrics on {address}"):
            await serve_metrics(CollectorRegistry(), address)
