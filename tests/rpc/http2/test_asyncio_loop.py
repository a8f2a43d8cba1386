import asyncio

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop


async def wait_for_what_nobody_knows() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_is_left_behind_is_named(internal_errors: list[tuple[Where, Exception]]) -> None:
    async with asyncio_loop(InternalErrors()) as loop:
        task = loop.create_task(wait_for_what_nobody_knows())
        loop.call_exception_handler({"message": "Task was destroyed but it is pending!", "task": task})
        task.cancel()
    ((where, error),) = internal_errors
    assert where is Where.ASYNCIO
    assert "wait_for_what_nobody_knows" in str(error)
