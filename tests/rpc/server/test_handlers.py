from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream
from h2.exceptions import StreamClosedError

from proglog_trio.errors import LogReadOnly
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.server.handlers import Method, ServerCounters, ServerHandler, ServerState, guarded
from proglog_trio.rpc.server.identity import Identity


def raising(error: Exception) -> tuple[Method, ServerState]:
    async def method(_stream: Stream[Any, Any]) -> None:
        raise error

    state = ServerState(ServerCounters())
    return guarded(method, state), state


@pytest.mark.parametrize("gone", [StreamTerminatedError("connection lost"), StreamClosedError(1), TimeoutError()])
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_client_that_has_gone_is_no_failure_of_ours(
    gone: Exception, depth: int, stream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever task groups the method has around it."""
    error = gone
    for _ in range(depth):
        error = ExceptionGroup("tasks", [error, GRPCError(Status.INTERNAL, "cancelled by the first")])
    method, state = raising(error)
    async with asyncio_loop():
        with pytest.raises(type(gone)) as caught:
            await aio_as_trio(method)(stream)
    assert caught.value is gone
    assert state.counters.requests_failed == 1
    assert not caplog.records


async def test_a_call_that_was_cancelled_and_meets_the_closed_stream_ends_as_cancelled(stream: Any) -> None:
    """grpclib cancels the call of a client that has gone, and would log another end as a failure."""

    async def method(_stream: Stream[Any, Any]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise StreamClosedError(1)

    async def cancelled() -> bool:
        task = asyncio.ensure_future(guarded(method, ServerState(ServerCounters()))(stream))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    async with asyncio_loop():
        assert await aio_as_trio(cancelled)()


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (LogReadOnly("the disk is full"), Status.ABORTED, 0),
        (GRPCError(Status.NOT_FOUND, "nobody"), Status.NOT_FOUND, 0),
        (ZeroDivisionError(), Status.INTERNAL, 1),
    ],
)
@pytest.mark.internal_errors
async def test_every_error_has_a_status(
    error: Exception, status: Status, logged: int, stream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for raised in (error, ExceptionGroup("tasks", [error])):
        caplog.clear()
        method, _ = raising(raised)
        async with asyncio_loop():
            with pytest.raises(GRPCError) as caught:
                await aio_as_trio(method)(stream)
        assert caught.value.status is status
        assert len(caplog.records) == logged


@pytest.mark.parametrize("gone", [StreamTerminatedError("connection lost"), StreamClosedError(1)])
async def test_a_call_whose_connection_has_ended_ends_as_cancelled(gone: Exception, stream: Any) -> None:
    """Also before grpclib has heard of that end and cancels it: it would log any other end as a failure."""
    stream._stream.closable = False
    method, _ = raising(gone)

    async def cancelled() -> bool:
        task = asyncio.ensure_future(method(stream))
        await asyncio.wait([task])
        return task.cancelled()

    async with asyncio_loop():
        assert await aio_as_trio(cancelled)()


@pytest.fixture
def stream() -> Any:
    """What a call's stream is does not matter here, but for whether anybody can be told anything on it."""
    return SimpleNamespace(_stream=SimpleNamespace(closable=True))


async def test_closing_ends_handlers_of_streams_that_were_reset() -> None:
    """One may be waiting to write an answer to the reset, on a connection whose client takes nothing."""

    async def answer_a_reset() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.get_running_loop().create_future()

    async def reset_and_close() -> None:
        nothing: Any = None
        state = ServerState(ServerCounters())
        handler = ServerHandler({}, nothing, nothing, nothing, state, 100, Identity(None), "127.0.0.1")
        stream: Any = object()
        task = asyncio.create_task(answer_a_reset())
        handler._tasks[stream] = task
        await asyncio.sleep(0)
        handler.cancel(stream)
        await asyncio.sleep(0)
        assert not task.done()
        handler.close()
        await asyncio.wait([task])
        assert task.cancelled()

    async with asyncio_loop():
        await aio_as_trio(reset_and_close)()
