"""Beside a client's stream to one node: a stream from another node that says when servers come, go and fail.

A process that is stopped, and a machine that is off, say nothing themselves, and a connection's silence means nothing
for as long as its keepalive allows. The other members know after some seconds of gossip. When they say so the node in
use is asked for a sign of life, and its connection is dropped if none comes. So what decides is whether this client
reaches the node: it stays at one that others alone have lost, and addresses may be others for it than for them.

To have nobody who tells is no failure: then the keepalive decides, as it does where nodes are of a version without this
call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import attrs
import trio
from attrs import Factory, define
from grpclib.const import Cardinality

from proglog_trio._proto.log.v1 import WatchServersRequest, WatchServersResponse
from proglog_trio.errors import CallFailed, NodeConnectionError, TlsError
from proglog_trio.internal_errors import Where
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, open_connection
from proglog_trio.rpc.calls.sessions import ExpectedCluster, NodeSession, OtherCluster
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.messages.stream_io import Rests, receive_next
from proglog_trio.waiters import Waiters

WATCH_SERVERS = "/log.v1.Log/WatchServers"
LIFE_SECONDS = 2.0
"""How long a node that has failed, as others say, may take to give any sign of life."""
ANSWER_SECONDS = 5.0
"""How long a node may take to say which servers there are, once it is connected to."""
MAX_TOLD = 1024
"""Of the servers in one answer, so many are looked at."""
_USELESS = frozenset({StatusCode.UNIMPLEMENTED, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED})


class _IsTheSame(Exception):
    """The node that tells is the one in use, at another address."""


@define(eq=False)
class ServerWatch:
    """Keeps one WatchServers stream, beside a stream of a client.

    Attributes:
        session: the client's end of its stream.
        connection: how nodes are connected to.
        channel: the connection of the client's stream.
        server_id: which server the node in use is; "": that is not known, as it is not of one of an older version.
    """

    session: NodeSession
    connection: ConnectionConfig
    channel: TunedChannel
    server_id: str = ""
    _found: Waiters = Factory(Waiters)

    def found(self, server_id: str, addresses: Sequence[str]) -> None:
        """Take what the node in use says of itself and of the servers; called by what asks it (asyncio side)."""
        self.server_id = server_id
        self.session.found(addresses)
        self._found.wake_all()

    # Ctrl-C comes to the main task: an error of this one would be the client's.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch at one node after the other, until cancelled (AnyIO)."""
        watched = self.session.watched
        watched.begin()
        boundary = self.connection.errors.boundary(Where.SERVER_WATCH)
        while True:
            await anyio.sleep(watched.next_pause())
            node = watched.next_node()
            if node is None:
                await self._found.wait()
                continue
            is_useless = False
            with boundary:
                is_useless = await self._watch_at(node)
            watched.ended(node, is_useless=is_useless or boundary.failed)

    async def _watch_at(self, node: str) -> bool:
        """Watch at a node until that ends; tell whether there is no reason to ask it again soon."""
        # A copy: the cluster is not learned from a node that nothing was asked of, nor told anything.
        config = attrs.evolve(self.connection, cluster=ExpectedCluster(self.session.cluster.name))
        try:
            async with open_connection(node, config) as opened:
                await opened.run(self._follow)
        except OtherCluster as error:
            self.session.is_elsewhere(node, str(error))
            return False
        except _IsTheSame:
            return True
        except CallFailed as error:
            return StatusCode(error.code) in _USELESS
        except (NodeConnectionError, TlsError):
            # What is wrong with certificates the client's own stream says, when it connects the next time.
            return False
        return False

    async def _follow(self, channel: TunedChannel) -> None:
        async with channel.request(
            WATCH_SERVERS, Cardinality.UNARY_STREAM, WatchServersRequest, WatchServersResponse
        ) as stream:
            await stream.send_message(WatchServersRequest(), end=True)
            rests = Rests()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await receive_next(stream, rests)
            except TimeoutError:
                return
            while answer is not None:
                self._told(answer)
                answer = await receive_next(stream, rests)

    def _told(self, answer: WatchServersResponse) -> None:
        if answer.server_id and answer.server_id == self.server_id:
            raise _IsTheSame
        self.session.watched.answered()
        self.session.found([server.rpc_addr for server in answer.servers[:MAX_TOLD]])
        if not self.server_id:
            may_be_it = bool(answer.failed)
        else:
            may_be_it = any(server.id == self.server_id for server in answer.failed)
        if may_be_it:
            self.channel.ask_for_life(LIFE_SECONDS, "another node says that this one has failed")


@asynccontextmanager
async def server_watch(
    session: NodeSession, connection: ConnectionConfig, channel: TunedChannel
) -> AsyncIterator[ServerWatch]:
    """Watch the servers for the length of an ``async with`` block; an error of the body comes out as it is (AnyIO).

    Only for a block that is in a task of its own, not around what a program does.
    """
    watch = ServerWatch(session, connection, channel)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        try:
            yield watch
        except Exception as error:  # noqa: BLE001 - carried out of the task group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
