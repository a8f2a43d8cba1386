from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType

import grpclib.utils
import h2.config
import h2.connection
import pytest
import trio
from hyperframe.frame import DataFrame, Frame, PingFrame

from proglog_trio.rpc.http2.bridge import TrioEventLoop, aio_as_trio, open_loop
from proglog_trio.rpc.http2.library_fixes import MIN_CANCELLED_TO_SWEEP, sweep_cancelled_timers

HOUR = 3600.0


async def _in_a_wrapper(utils: ModuleType) -> None:
    with utils.Wrapper():
        await asyncio.sleep(0)


async def test_grpclib_finds_the_task_inside_trio() -> None:
    async with open_loop():
        await aio_as_trio(_in_a_wrapper)(grpclib.utils)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.current_task is written in C from Python 3.12 on")
async def test_grpclib_still_keeps_what_it_found_when_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, grpclib asks asyncio each time: ask_asyncio_each_time can go."""
    assert grpclib.utils.__file__ is not None
    spec = importlib.util.spec_from_file_location("grpclib_utils_imported_first", grpclib.utils.__file__)
    assert spec is not None
    assert spec.loader is not None
    utils = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as before_trio_asyncio:
        before_trio_asyncio.setattr(asyncio, "current_task", sys.modules["_asyncio"].current_task)
        spec.loader.exec_module(utils)
    async with open_loop():
        with pytest.raises(RuntimeError, match="no running event loop"):
            await aio_as_trio(_in_a_wrapper)(utils)


def test_the_body_is_left_out() -> None:
    frame = DataFrame(7, data=b"secret" * 10_000)
    assert repr(frame) == "<DataFrame stream_id=7>"


def test_h2_still_formats_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, h2 has stopped formatting frames nobody looks at: use_cheap_frame_repr can go."""
    formatted = []

    def counting(frame: Frame) -> str:
        formatted.append(type(frame))
        return ""

    monkeypatch.setattr(Frame, "__repr__", counting)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.ping(b"12345678")
    server.receive_data(client.data_to_send())
    assert PingFrame in formatted


async def _timers_left(loop: TrioEventLoop, count: int) -> int:
    for _ in range(count):
        handle = loop.call_later(HOUR, print)
        await loop.synchronize()
        handle.cancel()
    await loop.synchronize()
    return len(loop._timers)


async def test_cancelled_timers_are_swept() -> None:
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        sweep_cancelled_timers(loop)
        kept = loop.call_later(HOUR, print)
        assert await _timers_left(loop, 5 * MIN_CANCELLED_TO_SWEEP) <= MIN_CANCELLED_TO_SWEEP + 1
        assert kept in loop._timers


async def test_timers_that_are_left_still_fire() -> None:
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        fired = trio.Event()
        loop.call_later(0.05, fired.set)
        await _timers_left(loop, 2 * MIN_CANCELLED_TO_SWEEP)
        with trio.fail_after(5):
            await fired.wait()


async def test_trio_asyncio_still_keeps_cancelled_timers() -> None:
    """When this fails, trio-asyncio sweeps cancelled timers itself: sweep_cancelled_timers can go."""
    async with open_loop() as loop:
        assert await _timers_left(loop, 3 * MIN_CANCELLED_TO_SWEEP) == 3 * MIN_CANCELLED_TO_SWEEP
