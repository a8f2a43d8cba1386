"""A bare grpclib server on trio-asyncio that answers Produce at once: what the HTTP/2 stack itself costs."""

from __future__ import annotations

import sys

import trio
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.http2.bridge import aio_as_trio, open_loop


class Echo:
    """The service."""

    async def produce(self, stream: Stream[log_v1.ProduceRequest, log_v1.ProduceResponse]) -> None:
        """Answer with offset 1."""
        await stream.recv_message()
        await stream.send_message(log_v1.ProduceResponse(offset=1))

    def __mapping__(self) -> dict[str, Handler]:
        """Return what grpclib dispatches by."""
        handler = Handler(self.produce, Cardinality.UNARY_UNARY, log_v1.ProduceRequest, log_v1.ProduceResponse)
        return {"/log.v1.Log/Produce": handler}


async def _serve(port: int) -> None:
    server = Server([Echo()])
    await server.start("127.0.0.1", port)
    await server.wait_closed()


async def _main(port: int) -> None:
    async with open_loop():
        await aio_as_trio(_serve)(port)


if __name__ == "__main__":
    trio.run(_main, int(sys.argv[1]))
