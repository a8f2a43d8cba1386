"""A pull stream to a peer: the puller's side on the wire (asyncio flavour)."""

from __future__ import annotations

import asyncio
import contextlib

import trio
from attrs import Factory, frozen
from grpclib.client import Stream
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import H2Error

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import Address
from proglog_trio.errors import CallFailed, ConnectionLost, ConnectionNotOpened, NodeConnectionError
from proglog_trio.log.repair.fetched_frames import FRAME_OVERHEAD_BYTES, MAX_ANSWER_BYTES
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, open_connection
from proglog_trio.rpc.calls.task_pair import run_beside
from proglog_trio.rpc.http2.wakeups import DeadlineWaits
from proglog_trio.rpc.messages.replication import frames_steps, request_to_message, response_steps
from proglog_trio.rpc.messages.stream_io import Rests, in_turns, receive_next

PULL = "/log.v1.Replication/Pull"
FETCH_FRAMES = "/log.v1.Replication/FetchFrames"
FETCH_SECONDS = 60.0

_PullStream = Stream[log_v1.PullRequest, log_v1.PullResponse]


@frozen(eq=False)
class PullStream:
    """One pull stream to the peer at an address, before it is opened; see replication.peer_task."""

    connection: ConnectionConfig
    address: str
    _ready: asyncio.Event = Factory(asyncio.Event)
    _room: asyncio.Event = Factory(asyncio.Event)

    def on_ready(self) -> None:
        """Look for what the session has to send."""
        self._ready.set()

    def on_room(self) -> None:
        """Let the session apply the frames that wait."""
        self._room.set()

    async def run(self, session: PullSession) -> None:
        """Run the stream, from Trio, until it ends, which raises what ended it.

        Raises:
            NodeConnectionError, CallFailed: the peer cannot be reached, or ended the stream.
            PeerLied, PullRefused, LogReadOnly, LogClosed: see _pull.
        """
        _check_address(self.address)
        async with open_connection(self.address, self.connection) as opened:
            await opened.run(_pull, session, self._ready, self._room)


def _check_address(address: str) -> None:
    """Raise ConnectionNotOpened for what a member says to be its address and is none."""
    try:
        Address.parse(address)
    except ValueError as error:
        raise ConnectionNotOpened(f"what the peer says to be its address is none: {error}") from None


async def _pull(channel: TunedChannel, session: PullSession, ready: asyncio.Event, room: asyncio.Event) -> None:
    """Pull until the stream ends, which raises what ended it.

    Raises:
        GRPCError, StreamTerminatedError: the peer ended it, or the connection is gone.
        PeerLied, PullRefused: the peer is not one to pull from.
        LogReadOnly, LogClosed: this node's log takes nothing more.
    """
    async with channel.request(PULL, Cardinality.STREAM_STREAM, log_v1.PullRequest, log_v1.PullResponse) as stream:
        await stream.send_request()
        rests = Rests()
        async with run_beside(_send(stream, session, ready)):
            while (message := await receive_next(stream, rests)) is not None:
                room.clear()
                is_done = session.received(await in_turns(response_steps(message)))
                while not is_done:
                    # Reading stops, and HTTP/2's flow control stops the peer.
                    await room.wait()
                    room.clear()
                    is_done = session.apply()
        # In this form grpclib puts the status that the peer gave in its place, if it gave one.
        raise StreamTerminatedError("the peer ended the stream")


async def fetch_frames(connection: ConnectionConfig, cluster_name: str, address: str, missing: Missing) -> list[bytes]:
    """Return the frames that the node at an address has of what is missing here, from Trio; at most so many bytes.

    Where it does not send all of them, in time or at all, those that came are worth as much: the next attempt asks for
    the others.

    Raises:
        NodeConnectionError, CallFailed: the node cannot be asked, or sends nothing.
        FrameError: what it sends are no frames.
    """
    request = log_v1.FetchFramesRequest(
        origin=missing.origin.data,
        from_sequence=missing.from_sequence,
        to_sequence=missing.to_sequence,
        cluster_name=cluster_name,
    )

    frames: list[bytes] = []

    async def fetch(channel: TunedChannel) -> None:
        size = 0
        rests = Rests()
        async with channel.request(
            FETCH_FRAMES, Cardinality.UNARY_STREAM, log_v1.FetchFramesRequest, log_v1.FetchFramesResponse
        ) as stream:
            await stream.send_message(request, end=True)
            while size < MAX_ANSWER_BYTES and (message := await receive_next(stream, rests)) is not None:
                found = await in_turns(frames_steps(message.frames), rests)
                frames.extend(found)
                size += len(message.frames) + len(found) * FRAME_OVERHEAD_BYTES

    _check_address(address)
    try:
        with trio.move_on_after(FETCH_SECONDS) as waiting:
            async with open_connection(address, connection) as opened:
                await opened.run(fetch)
        if waiting.cancelled_caught:
            raise ConnectionLost(f"{address} did not send within {FETCH_SECONDS:g} s what is missing")
    except (NodeConnectionError, CallFailed):
        if not frames:
            raise
    return frames


async def _send(stream: _PullStream, session: PullSession, ready: asyncio.Event) -> None:
    rests = Rests()
    try:
        with contextlib.closing(DeadlineWaits(ready, session.node.clock)) as waits:
            while True:
                ready.clear()
                while (request := session.next_request()) is not None:
                    await stream.send_message(request_to_message(request))
                    await rests.rest()
                if await waits.wait(session.deadline):
                    rests.waited()
    except (StreamTerminatedError, H2Error):
        # The receiving side sees the stream's end too, and the status that came with it.
        return
