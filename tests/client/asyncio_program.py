"""A program that uses clients under asyncio and says how that went, in JSON; run by test_asyncio_programs.py.

Its arguments: a node's address, what the program does, and statements, run before anything of this package is imported.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

for statement in sys.argv[3:]:
    exec(statement)  # noqa: S102 - a test's own arguments

import uvloop

from proglog_trio.client import open_consumer, open_producer

address, does = sys.argv[1:3]


async def record_in_and_out() -> None:
    """Give a record to the node and read it back."""
    async with open_producer(address) as producer:
        delivered = await (await producer.send(b"value")).wait()
        await producer.send_batch([b"more"] * 100)
    async with open_consumer(address, offset=delivered.offset, follow=False) as consumer:
        assert (await anext(consumer)).value == b"value"
        assert [record.value async for record in consumer].count(b"more") >= 100


async def asyncio_program() -> str:
    """Return the name of the loop's class."""
    await record_in_and_out()
    return type(asyncio.get_running_loop()).__name__


async def with_eager_tasks() -> str:
    """Run each task at once when it is made, up to its first wait; Python 3.12 has that."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(record_in_and_out())
    try:
        async with asyncio.timeout(0.05), open_consumer(address) as consumer:
            async for _ in consumer:
                pass
    except TimeoutError:
        return await asyncio_program()
    raise AssertionError("it must wait for more")


async def beside_trio() -> str:
    """Do the same under Trio in a thread beside asyncio."""
    import trio

    _, name = await asyncio.gather(asyncio.to_thread(trio.run, record_in_and_out), asyncio_program())
    return name


async def send_without_pause() -> None:
    """Send for ever."""
    async with open_producer(address) as producer:
        print("begun", flush=True)
        while True:
            await producer.send(b"value")


async def send_batches_without_pause() -> None:
    """Send batches for ever."""
    async with open_producer(address) as producer:
        print("begun", flush=True)
        while True:
            await producer.send_batch([b"value"] * 1000)


async def read_without_pause() -> None:
    """Read the whole log again and again."""
    print("begun", flush=True)
    while True:
        async with open_consumer(address, follow=False) as consumer:
            async for _ in consumer:
                pass


async def wait_for_more() -> None:
    """Wait at the log's end for ever."""
    async with open_consumer(address) as consumer:
        await anext(consumer)
        print("begun", flush=True)
        async for _ in consumer:
            pass


async def leaving_in_order(program: Callable[[], Awaitable[None]]) -> str:
    """Say that the program was ended by a cancellation, and whether a task is left then."""
    try:
        await program()
    except asyncio.CancelledError:
        print("cancelled", len(asyncio.all_tasks()), flush=True)
        raise
    raise AssertionError("it has no end of its own")


program: Coroutine[Any, Any, str]
match does:
    case "eager":
        program = with_eager_tasks()
    case "beside Trio":
        program = beside_trio()
    case "plain" | "uvloop":
        program = asyncio_program()
    case _:
        program = leaving_in_order(globals()[does])
loop = uvloop.run(program) if does == "uvloop" else asyncio.run(program)
others = [
    thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
]
print(json.dumps({"loop": loop, "trio_asyncio": "trio_asyncio" in sys.modules, "threads": others}))
