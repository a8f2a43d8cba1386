"""The produce calls of the Log service (asyncio flavour).

A stream goes on reading while earlier batches are being committed: one task reads and appends, the other waits for the
commits, in the order of the requests, and answers. What lies between them is bounded in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from attrs import frozen
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import BatchRefused, LogBusy, ProglogError
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.format.record import CHECKED_AT_ONCE_BYTES
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.protobuf import encode_message
from proglog_trio.rpc.messages.stream_io import Rests, in_turns, receive_available, receive_only, send_encoded
from proglog_trio.rpc.server.handlers import stopping_error
from proglog_trio.rpc.server.in_flight import Answer, InFlight, PendingAppend, Stored
from proglog_trio.rpc.server.log_service_state import LogServiceState
from proglog_trio.rpc.server.produce_encoding import (
    Content,
    batch_of,
    batch_of_records,
    batch_response,
    content_of,
    may_join,
    naming_request,
    produce_response,
)
from proglog_trio.rpc.server.requested_acknowledgement import THIS_NODE, RequestedAcknowledgement

_OVERHEAD_BYTES = 1024
"""What an append costs besides its payload."""

Request = TypeVar("Request")
Response = TypeVar("Response")
_RecordStream = Stream[record_messages.ProduceRequest, record_messages.ProduceResponse]
_BatchStream = Stream[log_v1.ProduceBatchRequest, log_v1.ProduceBatchResponse]


@frozen
class ProduceCalls:
    """The produce calls.

    Attributes:
        state: the service's.
    """

    state: LogServiceState

    async def produce(self, stream: Stream[log_v1.ProduceRequest, record_messages.ProduceResponse]) -> None:
        """Append one record."""
        with self._producing():
            request = await receive_only(stream)
            requested = self.state.config.acknowledgement.requested(request.acknowledgement)
            try:
                content = content_of(request.record)
            except BatchRefused:
                self.state.counters.batches_refused += 1
                raise
            answer = await (await self._append(batch_of_records(request, [content]), requested))
            if not isinstance(answer, Stored):
                raise answer
            self._stored(answer.appended.count)
            await stream.send_message(produce_response(answer.appended, 0, answer.achieved))

    async def produce_stream(self, stream: _RecordStream) -> None:
        """Append records; what has arrived together goes into one batch."""
        await self._run(stream, self._read_records, self._answer_records)

    async def produce_batches(self, stream: _BatchStream) -> None:
        """Append batches; one that is refused is answered with its error and does not end the stream."""
        await self._run(stream, self._read_batches, self._answer_batches)

    # -- both streams --------------------------------------------------------------------------------------------------

    async def _run(
        self,
        stream: Stream[Request, Response],
        read: Callable[[Stream[Request, Response], InFlight], Awaitable[None]],
        answer: Callable[[Stream[Request, Response], list[PendingAppend]], Awaitable[None]],
    ) -> None:
        in_flight = InFlight(self.state.config.in_flight_bytes)

        async def read_all() -> None:
            try:
                await read(stream, in_flight)
            except asyncio.CancelledError:
                # By drain: what has been read is still answered. Any other is the end of the call.
                if not self.state.draining:
                    raise
                in_flight.end(stopping_error())
            except Exception as error:  # noqa: BLE001 - raised by the other task, after the answers to what came before
                in_flight.end(error)
            else:
                in_flight.end()

        with self._producing():
            await stream.send_initial_metadata()
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_all())
                self.state.reading.add(reading)
                try:
                    while finished := await in_flight.next():
                        await answer(stream, finished)
                        in_flight.answered(finished)
                finally:
                    self.state.reading.discard(reading)
                    reading.cancel()

    @contextlib.contextmanager
    def _producing(self) -> Iterator[None]:
        if self.state.draining:
            raise stopping_error()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self.state.producing.add(task)
        try:
            yield
        finally:
            self.state.producing.discard(task)

    async def _append(self, batch: Batch, requested: RequestedAcknowledgement) -> asyncio.Future[Answer]:
        """Give a batch to the log, once it has room; return what becomes its answer.

        Raises:
            ProglogError: the log refuses it at once.
        """
        loop = asyncio.get_running_loop()
        is_large = len(batch.payload) > CHECKED_AT_ONCE_BYTES
        if is_large:
            # It is checked here, in turns; append_soon would check it at a stretch.
            rests = Rests()
            try:
                await in_turns(self.state.log.check_steps(batch), rests)
            except ProglogError:
                self.state.counters.batches_refused += 1
                raise
            await rests.rest()
        while True:
            answer: asyncio.Future[Answer] = loop.create_future()
            try:
                self.state.log.append_soon(batch, partial(self._appended, answer, requested), checked=is_large)
            except LogBusy:
                # Too much waits for the disk. Not answered with an error: the client's windows fill up, and it waits.
                room: asyncio.Future[None] = loop.create_future()
                stop_waiting = self.state.log.notify_room(partial(_settle, room, None))
                try:
                    await room
                finally:
                    stop_waiting()
            except ProglogError:
                self.state.counters.batches_refused += 1
                raise
            else:
                return answer

    def _appended(
        self, answer: asyncio.Future[Answer], requested: RequestedAcknowledgement, appended: Appended | ProglogError
    ) -> None:
        """Answer an append that the log has answered, once as many other nodes have it as were asked for."""
        if answer.done():
            return  # cancelled: its call has ended
        if not isinstance(appended, Appended):
            answer.set_result(appended)
            return

        def achieved(achieved: AcknowledgementResult) -> None:
            _settle(answer, Stored(appended, achieved))

        if requested.nodes <= THIS_NODE:
            achieved(AcknowledgementResult(THIS_NODE, reached=True))
            return
        first, following = appended.base_sequence, appended.base_sequence + appended.count
        self.state.acknowledgements.begin(
            appended.origin, first, following, requested.nodes, requested.acknowledgement_timeout, achieved
        )

    def _stored(self, records: int) -> None:
        self.state.counters.batches_produced += 1
        self.state.counters.records_produced += records

    # -- ProduceStream -------------------------------------------------------------------------------------------------

    async def _read_records(self, stream: _RecordStream, in_flight: InFlight) -> None:
        number = 0
        while requests := await receive_available(stream):
            group: list[Content] = []
            first = requests[0]
            for request in requests:
                number += 1
                try:
                    content = content_of(request.record)
                    self.state.config.acknowledgement.requested(request.acknowledgement)
                except (BatchRefused, GRPCError) as error:
                    # What came before it in this piece is stored and answered as if it had come alone.
                    await self._append_records(in_flight, first, group)
                    self.state.counters.batches_refused += 1
                    raise naming_request(error, number) from None
                if group and not may_join(first, request):
                    await self._append_records(in_flight, first, group)
                    group = []
                if not group:
                    first = request
                group.append(content)
            await self._append_records(in_flight, first, group)

    async def _append_records(
        self, in_flight: InFlight, first: record_messages.ProduceRequest, group: list[Content]
    ) -> None:
        if not group:
            return
        batch = batch_of_records(first, group)
        size = len(batch.payload) + len(group) * _OVERHEAD_BYTES
        await in_flight.wait_room(size)
        requested = self.state.config.acknowledgement.requested(first.acknowledgement)
        in_flight.add(PendingAppend(first.producer_sequence, len(group), size, await self._append(batch, requested)))

    async def _answer_records(self, stream: _RecordStream, finished: list[PendingAppend]) -> None:
        responses: list[bytes] = []
        failure: Exception | None = None
        for append in finished:
            answer = append.answer.result()
            if not isinstance(answer, Stored):
                failure = answer  # ends the stream, after the answers to what came before
                break
            self._stored(append.count)
            responses += [
                prefixed(produce_response(answer.appended, index, answer.achieved).SerializeToString())
                for index in range(append.count)
            ]
        if responses:
            await send_encoded(stream, b"".join(responses), len(responses))
        if failure is not None:
            raise failure

    # -- ProduceBatches ------------------------------------------------------------------------------------------------

    async def _read_batches(self, stream: _BatchStream, in_flight: InFlight) -> None:
        while requests := await receive_available(stream):
            for request in requests:
                size = len(request.payload) + _OVERHEAD_BYTES
                await in_flight.wait_room(size)
                try:
                    requested = self.state.config.acknowledgement.requested(request.acknowledgement)
                    answer = await self._append(
                        batch_of(request, request.payload, request.count, request.payload_crc, request.attributes),
                        requested,
                    )
                except (ProglogError, GRPCError) as error:
                    answer = asyncio.get_running_loop().create_future()
                    answer.set_result(error)
                # The request itself is not kept: it holds a payload of its own.
                in_flight.add(PendingAppend(request.producer_sequence, 1, size, answer))

    async def _answer_batches(self, stream: _BatchStream, finished: list[PendingAppend]) -> None:
        responses: list[bytes] = []
        for append in finished:
            answer = append.answer.result()
            if isinstance(answer, Stored):
                self._stored(answer.appended.count)
            responses.append(prefixed(encode_message(batch_response(append.producer_sequence, answer))))
        await send_encoded(stream, b"".join(responses), len(responses))


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)
