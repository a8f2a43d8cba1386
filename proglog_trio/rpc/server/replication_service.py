"""The Replication service, log.v1.Replication: serves those who pull from this node (asyncio flavour)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import closing

from attrs import field, frozen, validators
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.replication.events import PullRefused
from proglog_trio.replication.replica import Replica
from proglog_trio.replication.source_reader import FrameSource, SourceAnswer
from proglog_trio.replication.source_session import SourceSession
from proglog_trio.rpc.http2.wakeups import DeadlineWaits
from proglog_trio.rpc.messages.replication import (
    encode_fetched,
    encode_frames,
    encode_response,
    origin_of,
    request_steps,
)
from proglog_trio.rpc.messages.stream_io import (
    Rests,
    in_turns,
    receive_available,
    receive_only,
    send_encoded,
    wait_writable,
)
from proglog_trio.rpc.server.disk_calls import DiskCalls
from proglog_trio.units import KIBIBYTE

SERVICE_NAME = "log.v1.Replication"

_PullStream = Stream[log_v1.PullRequest, log_v1.PullResponse]


@frozen(kw_only=True)
class ReplicationServiceConfig:
    """The service's limits.

    Attributes:
        answer_bytes: how many bytes of frames one message holds, from each of the two places that are read; one frame
            may be larger.
    """

    answer_bytes: int = field(default=512 * KIBIBYTE, validator=validators.ge(1))


@frozen(eq=False)
class ReplicationService:
    """The service.

    Attributes:
        replica: this node's part in replication.
        executor: has the threads that read the log.
    """

    replica: Replica
    executor: Executor
    config: ReplicationServiceConfig = field(factory=ReplicationServiceConfig)

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods by their paths, for grpclib."""
        return {
            f"/{SERVICE_NAME}/Pull": Handler(
                self._pull, Cardinality.STREAM_STREAM, log_v1.PullRequest, log_v1.PullResponse
            ),
            f"/{SERVICE_NAME}/FetchFrames": Handler(
                self._fetch_frames, Cardinality.UNARY_STREAM, log_v1.FetchFramesRequest, log_v1.FetchFramesResponse
            ),
        }

    async def _pull(self, stream: _PullStream) -> None:
        await stream.send_initial_metadata()
        ready = asyncio.Event()
        session = self.replica.open_source(ready.set)
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(stream, session, ready))
                await self._receive(stream, session)
                sending.cancel()
        finally:
            self.replica.close_source(session)

    async def _fetch_frames(self, stream: Stream[log_v1.FetchFramesRequest, log_v1.FetchFramesResponse]) -> None:
        request = await receive_only(stream)
        cluster_name = self.replica.node.hello.cluster_name
        if request.cluster_name != cluster_name:
            raise PullRefused(f"this node is of the cluster {cluster_name!r}, not of {request.cluster_name!r}")
        origin = origin_of(request.origin)
        sequence = request.from_sequence
        with DiskCalls[FrameSource](self.executor) as disk:
            while sequence < request.to_sequence:
                await wait_writable(stream)
                found = await disk.begin(
                    self.replica.node.log.frames, origin, sequence, request.to_sequence, self.config.answer_bytes
                )
                sequence = found.next_sequence
                if found.frames:
                    await send_encoded(stream, encode_fetched(tuple(found.frames)), 1)

    async def _receive(self, stream: _PullStream, session: SourceSession) -> None:
        rests = Rests()
        while messages := await receive_available(stream):
            rests.waited()
            for message in messages:
                request = await in_turns(request_steps(message))
                session.received(request)
                await rests.rest()

    async def _send(self, stream: _PullStream, session: SourceSession, ready: asyncio.Event) -> None:
        log = self.replica.node.log
        rests = Rests()
        clock = self.replica.node.clock
        with DiskCalls[FrameSource](self.executor) as disk, closing(DeadlineWaits(ready, clock)) as waits:
            source = await disk.open(FrameSource, log)
            # How far the source has read of the log, and whether it has sent all that is wanted up to there.
            read_to, is_done = -1, True
            # The read that is under way while the answer before it is sent; at most one.
            ahead: asyncio.Future[SourceAnswer] | None = None
            while True:
                ready.clear()
                while (response := session.next_response()) is not None:
                    await wait_writable(stream)
                    await send_encoded(stream, encode_response(response), 1)
                    await rests.rest()
                is_behind = not is_done or (read_to < log.next_offset and bool(session.wanted))
                # A read that is under way is always finished: wants that have changed meanwhile come with the next one.
                if ahead is None and not (session.has_want_changes or is_behind):
                    if await waits.wait(session.deadline):
                        rests.waited()
                    continue
                window = await wait_writable(stream)
                if ahead is None:
                    answer = await self._next_answer(disk, source, session)
                else:
                    answer, ahead = await ahead, None
                read_to, is_done = answer.read_to, answer.is_done
                size = sum(map(len, answer.pieces))
                session.frames_read(answer.count, size, answer.ended)
                if answer.pieces:
                    if not is_done and size <= window and not source.is_at_the_end:
                        # The puller takes this answer at once, so the next may be read meanwhile.
                        ahead = self._read(disk, source, session)
                    await send_encoded(stream, encode_frames(answer.pieces), 1)

    async def _next_answer(
        self, disk: DiskCalls[FrameSource], source: FrameSource, session: SourceSession
    ) -> SourceAnswer:
        # Frames that were appended just now are in memory, and need no thread; wants that have changed do.
        recent = None if session.has_want_changes else source.read_recent(self.config.answer_bytes)
        return recent if recent is not None else await self._read(disk, source, session)

    def _read(
        self, disk: DiskCalls[FrameSource], source: FrameSource, session: SourceSession
    ) -> asyncio.Future[SourceAnswer]:
        return disk.begin(source.read, session.pop_want_changes(), self.config.answer_bytes)
