"""What is new about the servers, for every client that watches them.

The members are looked at once for all watchers, and what is encoded is shared. What waits for a watcher that does not
read is bounded, whatever happens meanwhile: that the list has changed, and which servers failed, at most MAX_FAILED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import trio
from attrs import Factory, define

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.messages.protobuf import encode_message
from proglog_trio.rpc.messages.stream_io import encode_items
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.log_service_state import ServerInfo

MAX_FAILED = 64
"""Of those that failed, so many are told in one answer, the newest."""
REST_SECONDS = 0.5
"""Between two looks at the members; what happens meanwhile is seen at the next. A failure is told at once as a rule."""
WOKEN_AT_ONCE = 32
WAKING_SECONDS = 0.005
"""Between groups of so many watchers, so that other clients have their turn: a thousand would hold the loop."""
_SERVERS = 1
"""The field of GetServersResponse and of WatchServersResponse."""

Look = Callable[[], Sequence[ServerInfo]]


@define(eq=False)
class Watcher:
    """What one client has not been told yet.

    Attributes:
        failed: those that failed, in the order in which it was seen.
        has_news: whether there is something to tell.
    """

    failed: dict[ServerInfo, None] = Factory(dict)
    has_news: bool = True
    _woken: asyncio.Event = Factory(asyncio.Event)

    def note(self, failed: Sequence[ServerInfo]) -> None:
        """Keep that there is news: the list has changed, and these have failed, the newest first."""
        for server in reversed(failed):
            # The newest are at the end, where none is dropped.
            self.failed.pop(server, None)
            self.failed[server] = None
        for server in list(islice(self.failed, max(len(self.failed) - MAX_FAILED, 0))):
            del self.failed[server]
        self.has_news = True

    def take(self) -> list[ServerInfo]:
        """Return which have failed, the newest first: all that there was to tell is told with them."""
        failed = list(reversed(self.failed))
        self.failed.clear()
        self.has_news = False
        return failed

    def wake(self) -> None:
        """Wake the task that waits for news."""
        self._woken.set()

    async def wait(self) -> None:
        """Return when there is news, or something else that wakes all (asyncio flavour)."""
        await self._woken.wait()
        self._woken.clear()


@define(eq=False)
class ServerNews:
    """The servers as they were when they were last looked at, and those who watch them.

    Attributes:
        cluster_name, server_id: this node's.
    """

    cluster_name: str
    server_id: str
    _alive: Look
    _failed: Look
    _servers: tuple[ServerInfo, ...] = ()
    _counting_as_failed: tuple[ServerInfo, ...] = ()
    _watchers: dict[Watcher, None] = Factory(dict)
    # The list as it stands in an answer; None: it has changed since it was encoded.
    _encoded: bytes | None = None
    _encoding: asyncio.Lock = Factory(asyncio.Lock)

    @contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """Give a client news from now on; the first is the list as it is, and all that count as failed."""
        self.look()
        watcher = Watcher()
        watcher.note(self._counting_as_failed)
        self._watchers[watcher] = None
        try:
            yield watcher
        finally:
            del self._watchers[watcher]

    def look(self) -> None:
        """Look at the servers, and keep for each watcher what is new about them."""
        servers, failed = tuple(self._alive()), tuple(self._failed())
        before = set(self._counting_as_failed)
        fallen = tuple(server for server in failed if server not in before)
        self._counting_as_failed = failed
        if servers != self._servers:
            self._servers, self._encoded = servers, None
        elif not fallen:
            return
        for watcher in self._watchers:
            watcher.note(fallen)

    async def tell(self) -> None:
        """Look at the servers, and wake the watchers for whom there is news, some at a time (Trio flavour)."""
        self.look()
        waiting = [watcher for watcher in self._watchers if watcher.has_news]
        for start in range(0, len(waiting), WOKEN_AT_ONCE):
            if start:
                await trio.sleep(WAKING_SECONDS)
            for watcher in waiting[start : start + WOKEN_AT_ONCE]:
                watcher.wake()

    def wake_all(self) -> None:
        """Wake all watchers, with or without news."""
        for watcher in self._watchers:
            watcher.wake()

    async def follow(self, change_after: Callable[[int], Awaitable[int]], errors: InternalErrors) -> None:
        """Tell watchers of what happens to the members, until cancelled (Trio flavour).

        Args:
            change_after: see Membership.change_after.
            errors: where unforeseen errors are counted.
        """
        seen = -1
        turns = errors.turns(Where.SERVER_LIST)
        while True:
            async with turns:
                seen = await change_after(seen)
                await self.tell()
                await trio.sleep(REST_SECONDS)

    async def encoded(self) -> bytes:
        """Return the list as it stands in an answer (asyncio flavour)."""
        while self._encoded is None:
            # One of those who want it encodes it, and the others wait for that.
            async with self._encoding:
                if self._encoded is None:
                    servers = self._servers
                    encoded = await encode_servers(servers)
                    if servers is self._servers:
                        self._encoded = encoded
        return self._encoded


def server_message(server: ServerInfo) -> log_v1.Server:
    """Return a server as it is told."""
    return log_v1.Server(id=sendable(server.id), rpc_addr=sendable(server.rpc_addr), is_leader=server.is_leader)


async def encode_servers(servers: Sequence[ServerInfo]) -> bytes:
    """Return the list of servers as it stands in an answer (asyncio flavour)."""
    return await encode_items(_SERVERS, map(server_message, servers))


def encode_rest(cluster_name: str, server_id: str, failed: Sequence[ServerInfo] = ()) -> bytes:
    """Return what stands in an answer besides the list of servers.

    Args:
        cluster_name: the answering node's.
        server_id: likewise.
        failed: at most MAX_FAILED of them, in an answer of WatchServers alone.
    """
    rest = log_v1.WatchServersResponse(
        cluster_name=cluster_name, server_id=sendable(server_id), failed=list(map(server_message, failed))
    )
    return encode_message(rest)
