from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from proglog_trio.rpc.server.disk_calls import DiskCalls


class Resource:
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.let_go = threading.Event()
        self.entered = threading.Event()
        self.closed_while_reading = False

    def slow(self) -> str:
        self.entered.set()
        self.let_go.wait(10)
        self.closed_while_reading = self.closed.is_set()
        return "read"

    def close(self) -> None:
        self.closed.set()


def test_what_was_opened_is_closed() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            with DiskCalls[Resource](executor) as disk:
                resource = await disk.open(Resource)
                resource.let_go.set()
                assert await disk.begin(resource.slow) == "read"
                assert not resource.closed.is_set()
            assert resource.closed.is_set()

    asyncio.run(run())


def test_a_read_under_way_is_not_closed_under_its_feet() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            opened = []

            async def stream() -> None:
                with DiskCalls[Resource](executor) as disk:
                    opened.append(await disk.open(Resource))
                    await disk.begin(opened[0].slow)

            task = asyncio.ensure_future(stream())
            while not opened or not opened[0].entered.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (resource,) = opened
            assert not resource.closed.is_set()
            resource.let_go.set()
        assert resource.closed.is_set()
        assert not resource.closed_while_reading

    asyncio.run(run())


def test_what_is_opened_after_the_stream_has_ended_is_closed() -> None:
    async def run() -> None:
        resource = Resource()

        def slowly() -> Resource:
            resource.slow()
            return resource

        with ThreadPoolExecutor(1) as executor:

            async def stream() -> None:
                with DiskCalls[Resource](executor) as disk:
                    await disk.open(slowly)

            task = asyncio.ensure_future(stream())
            while not resource.entered.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            resource.let_go.set()
        assert resource.closed.is_set()

    asyncio.run(run())


def test_errors_come_out_and_one_that_nobody_awaits_is_no_news() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        unheard: list[object] = []
        loop.set_exception_handler(lambda _, context: unheard.append(context))
        with ThreadPoolExecutor(1) as executor, DiskCalls[Resource](executor) as disk:
            with pytest.raises(ValueError, match="no"):
                await disk.open(fail)  # type: ignore[arg-type]  # it opens nothing
            ahead = disk.begin(fail)
            while not ahead.done():  # noqa: ASYNC110 - awaiting it is what is not done here
                await asyncio.sleep(0)
            del ahead
        await asyncio.sleep(0)
        assert unheard == []

    asyncio.run(run())


def test_one_call_at_a_time() -> None:
    async def run() -> None:
        resource = Resource()
        with ThreadPoolExecutor(1) as executor, DiskCalls[Resource](executor) as disk:
            first = disk.begin(resource.slow)
            with pytest.raises(RuntimeError, match="one blocking call"):
                disk.begin(resource.slow)
            resource.let_go.set()
            await first

    asyncio.run(run())
