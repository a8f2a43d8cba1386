"""The calls of the Log service that tell of the servers (asyncio flavour)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attrs import frozen
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.messages.stream_io import receive_only, send_encoded
from proglog_trio.rpc.server.handlers import stopping_error
from proglog_trio.rpc.server.log_service_state import LogServiceState
from proglog_trio.rpc.server.server_list.news import ServerNews, encode_rest, encode_servers


@frozen
class ServerListCalls:
    """The calls.

    Attributes:
        state: the service's.
        news: what is told.
    """

    state: LogServiceState
    news: ServerNews

    async def get_servers(self, stream: Stream[log_v1.GetServersRequest, log_v1.GetServersResponse]) -> None:
        """Answer with the servers that there are now."""
        await receive_only(stream)
        servers = await encode_servers(self.state.servers())
        rest = encode_rest(self.news.cluster_name, self.news.server_id)
        await send_encoded(stream, prefixed(servers + rest), 1)

    async def watch_servers(self, stream: Stream[log_v1.WatchServersRequest, log_v1.WatchServersResponse]) -> None:
        """Send the servers that there are, and again whenever that changes or one has failed."""
        await receive_only(stream)
        with self._counted(), self.news.watcher() as watcher:
            while not self.state.draining:
                if watcher.has_news:
                    rest = encode_rest(self.news.cluster_name, self.news.server_id, watcher.take())
                    # Of which a newer one may be encoded meanwhile: then it is told once more than is needed.
                    servers = await self.news.encoded()
                    await send_encoded(stream, prefixed(servers + rest), 1)
                await watcher.wait()
        raise stopping_error()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        counters, most = self.state.counters, self.state.config.max_watchers
        if counters.watchers >= most:
            counters.watchers_refused += 1
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"this node serves at most {most} watchers of the servers")
        counters.watchers += 1
        try:
            yield
        finally:
            counters.watchers -= 1
