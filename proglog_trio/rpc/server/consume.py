"""The consume calls of the Log service (asyncio flavour).

A stream reads from disk only when its client takes data, at most one answer ahead, and its share of a common bound: a
consumer that has stopped reading holds what is left of one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import LogClosed, OffsetOutOfRange
from proglog_trio.log.format.position import Position
from proglog_trio.log.reader import LogReader
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.stream_io import receive_only, send_encoded, wait_writable
from proglog_trio.rpc.server.consume_encoding import Answers, BatchAnswers, RecordAnswers, read_record
from proglog_trio.rpc.server.disk_calls import DiskCalls
from proglog_trio.rpc.server.handlers import stopping_error
from proglog_trio.rpc.server.log_service_state import LogServiceState


@frozen
class ConsumeCalls:
    """The consume calls.

    Attributes:
        state: the service's.
    """

    state: LogServiceState

    async def consume(self, stream: Stream[log_v1.ConsumeRequest, record_messages.ConsumeResponse]) -> None:
        """Answer with one record."""
        request = await receive_only(stream)
        log = self.state.log
        with DiskCalls[LogReader](self.state.executor) as disk:
            record = await disk.begin(read_record, log, request.offset, log.lowest_offset, log.next_offset)
        await stream.send_message(record_messages.ConsumeResponse(record=record))
        self.state.counters.records_consumed += 1

    async def consume_stream(self, stream: Stream[log_v1.ConsumeRequest, record_messages.ConsumeResponse]) -> None:
        """Send every record from an offset on, and wait for those to come."""
        request = await receive_only(stream)
        with self._consumer(), DiskCalls[RecordAnswers](self.state.executor) as disk:
            await stream.send_initial_metadata()
            offset = request.offset
            while offset > self.state.log.next_offset:
                await self._change()
            answers = await disk.open(self._open_records, offset)
            await self._send_all(stream, disk, answers, asked_bytes=0, limit=None)

    async def consume_batches(
        self, stream: Stream[log_v1.ConsumeBatchesRequest, log_v1.ConsumeBatchesResponse]
    ) -> None:
        """Send batches as their producers packed them."""
        request = await receive_only(stream)
        with self._consumer(), DiskCalls[BatchAnswers](self.state.executor) as disk:
            answers = await disk.open(self._open_batches, request)
            # Looked up after the reader has begun, so that "the end" is not before its start.
            limit = self.state.log.next_offset if request.until_end else None
            await stream.send_initial_metadata()
            await self._send_all(stream, disk, answers, asked_bytes=request.response_bytes, limit=limit)

    # -- inside --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _consumer(self) -> Iterator[None]:
        counters = self.state.counters
        if counters.consumers >= self.state.config.max_consumers:
            counters.consumers_refused += 1
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"this node serves at most {self.state.config.max_consumers} consumers"
            )
        counters.consumers += 1
        try:
            yield
        finally:
            counters.consumers -= 1

    def _open_records(self, offset: int) -> RecordAnswers:
        return RecordAnswers(self.state.log.reader_at_offset(offset), offset)

    def _open_batches(self, request: log_v1.ConsumeBatchesRequest) -> BatchAnswers:
        log = self.state.log
        skip_missing = request.skip_missing
        if request.position is not None:
            position = Position.decode(request.position)
            return BatchAnswers(log.reader_at_position(position, skip_missing=skip_missing))
        if request.offset is not None:
            lowest, end = log.lowest_offset, log.next_offset
            if request.offset > end:
                raise OffsetOutOfRange(request.offset, lowest, end)
            return BatchAnswers(log.reader_at_offset(request.offset, skip_missing=skip_missing))
        if request.anchor is not None:
            return BatchAnswers(self._reader_at_anchor(request.anchor, skip_missing=skip_missing))
        raise GRPCError(Status.INVALID_ARGUMENT, "the start is not set: an offset, a position or an anchor")

    def _reader_at_anchor(self, anchor: log_v1.ConsumeBatchesRequestAnchor, *, skip_missing: bool) -> LogReader:
        log = self.state.log
        if anchor == log_v1.ConsumeBatchesRequestAnchor.END:
            return log.reader_at_offset(log.next_offset, skip_missing=skip_missing)
        if anchor != log_v1.ConsumeBatchesRequestAnchor.LOWEST:
            raise GRPCError(Status.INVALID_ARGUMENT, f"the anchor {int(anchor)} is not known")
        while True:
            lowest = log.lowest_offset
            try:
                return log.reader_at_offset(lowest, skip_missing=skip_missing)
            except OffsetOutOfRange:
                if log.lowest_offset == lowest:
                    raise
                # Retention has moved it meanwhile.

    async def _send_all(
        self,
        stream: Stream[Any, Any],
        disk: DiskCalls[Any],
        source: BatchAnswers | RecordAnswers,
        *,
        asked_bytes: int,
        limit: int | None,
    ) -> None:
        """Send what the source reads, up to limit or for ever."""
        log = self.state.log
        # The read that is under way while the answer before it is sent; at most one, so at most two answers are held.
        ahead: asyncio.Future[Answers] | None = None
        # Whether the source was read: the first answer tells the start's position, even where there is nothing to read.
        begun = False
        while True:
            if ahead is None:
                await wait_writable(stream)
                end = log.next_offset
                until = end if limit is None else min(limit, end)
                if begun and source.next_offset >= until:
                    if limit is not None:
                        return
                    await self._change()
                    continue
                ahead = disk.begin(source.read, self.state.share_of_answer(asked_bytes), until, end)
            answers = await ahead
            ahead, begun = None, True
            if not answers.data:
                continue  # it has passed over what no consumer is given, such as control frames
            window = await wait_writable(stream)
            end = log.next_offset
            until = end if limit is None else min(limit, end)
            if answers.next_offset < until and len(answers.data) <= window:
                # The client takes this answer at once, so the next may be read meanwhile.
                ahead = disk.begin(source.read, self.state.share_of_answer(asked_bytes), until, end)
            await send_encoded(stream, answers.data, answers.records)
            self.state.counters.records_consumed += answers.records
            self.state.counters.bytes_consumed += len(answers.data)

    async def _change(self) -> None:
        """Wait until the log's end has moved; raises when it never will."""
        if self.state.draining:
            raise stopping_error()
        if self.state.log.closing:
            raise LogClosed("the log is closing")
        await self.state.changed.wait()
        if self.state.draining:
            raise stopping_error()
