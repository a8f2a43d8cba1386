"""A program that imports libraries in an order of its own, and then uses asyncio beside Trio; run by test_bridge.py.

Its arguments are statements, run before anything of this package is imported.
"""

import asyncio
import sys
import tempfile
import threading
import warnings
from pathlib import Path

for statement in sys.argv[1:]:
    exec(statement)  # noqa: S102 - a test's own arguments

import grpclib.client
import grpclib.server
import trio
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from proglog_trio.client import open_consumer, open_producer
from tests.rpc.support import running_server


async def record_in_and_out() -> str:
    """Give a record to a server in this process and read it back; return the class of the loop that this ran on."""
    with tempfile.TemporaryDirectory() as directory:
        async with running_server(Path(directory)) as server:
            async with open_producer(server.address) as producer:
                assert (await (await producer.send(b"value")).wait()).offset == 0
            async with open_consumer(server.address, follow=False) as consumer:
                assert [record.value async for record in consumer] == [b"value"]
            return type(asyncio.get_running_loop()).__name__


async def call_of_another_library() -> None:
    """Answer and make a call with grpclib as it is, on asyncio's loop."""
    server = grpclib.server.Server([Health()])
    await server.start("127.0.0.1", 0)
    sockets = server._server.sockets  # type: ignore[union-attr]  # it was started
    channel = grpclib.client.Channel("127.0.0.1", sockets[0].getsockname()[1])
    try:
        await HealthStub(channel).Check(HealthCheckRequest())
    finally:
        channel.close()
        server.close()
        await server.wait_closed()


async def asyncio_program() -> None:
    """Use asyncio, and Trio in a thread beside it."""
    assert type(asyncio.get_running_loop()) is asyncio.SelectorEventLoop
    assert await asyncio.to_thread(trio.run, record_in_and_out) == "TrioEventLoop"
    await call_of_another_library()
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    assert type(asyncio.get_running_loop()) is asyncio.SelectorEventLoop


class OwnLoop(asyncio.SelectorEventLoop):
    """The loop of somebody's own policy."""


class OwnPolicy(asyncio.DefaultEventLoopPolicy):
    """Somebody's own policy."""

    _loop_factory = OwnLoop


async def class_of_running_loop() -> type[asyncio.AbstractEventLoop]:
    """Return the class of the loop that this runs on."""
    return type(asyncio.get_running_loop())


def first_loop_of_this_thread() -> None:
    """Have asyncio make a loop where there is none yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is no current event loop", DeprecationWarning)
        loop = asyncio.get_event_loop()
    assert type(loop) is asyncio.SelectorEventLoop
    loop.close()


first_loop_of_this_thread()
asyncio.run(asyncio_program())
assert trio.run(record_in_and_out) == "TrioEventLoop"
asyncio.run(asyncio_program())
asyncio.set_event_loop_policy(OwnPolicy())
assert asyncio.run(class_of_running_loop()) is OwnLoop
asyncio.set_event_loop_policy(None)
assert asyncio.run(class_of_running_loop()) is asyncio.SelectorEventLoop
assert threading.active_count() == 1 + sum(thread.daemon for thread in threading.enumerate()), threading.enumerate()
