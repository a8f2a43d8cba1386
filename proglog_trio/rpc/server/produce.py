"""The produce calls of the Log service (asyncio flavour).

A stream goes on reading while earlier batches are being committed: one task reads and appends, the other waits for the
commits, in the order of the requests, and answers. What lies between them is bounded in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from attrs import Factory, define, field, frozen
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import BatchRefused, LogBusy, ProglogError
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.format.record import CHECKED_AT_ONCE_BYTES, Record, pack_records, pack_values, payload_crc
from proglog_trio.replication.acknowledgements import Achieved
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.status import grpc_error
from proglog_trio.rpc.messages.stream_io import receive_available, receive_only, send_encoded
from proglog_trio.rpc.server.handlers import stopping_error
from proglog_trio.rpc.server.log_service_state import ServiceState
from proglog_trio.rpc.server.requested_acks import THIS_NODE, Wanted, wanted_of


@frozen
class Stored:
    """A batch that is durable, here and on as many other nodes as were waited for."""

    appended: Appended
    achieved: Achieved


Answer = Stored | ProglogError | GRPCError
Content = bytes | Record
"""What a record holds; bytes: a value and nothing else."""
_READ_AT_ONCE_BYTES = 64 * 1024
_ANSWERED_AT_ONCE = 500
_EMPTY = "the record is empty: it has no value, no key and no headers"
_OVERHEAD_BYTES = 1024  # what an append costs besides its payload


class _RecordFields(Protocol):
    """A record as it comes in a request, of a generated class or of one of record_messages.py."""

    @property
    def value(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, bytes]: ...
    @property
    def timestamp(self) -> int: ...


class _BatchFields(Protocol):
    """What all requests to append say of their batch."""

    @property
    def producer_id(self) -> int: ...
    @property
    def producer_sequence(self) -> int: ...
    @property
    def after_log_time(self) -> int: ...


@define
class _Waiting:
    """An append that is not answered yet.

    Attributes:
        producer_sequence: of the batch that it answers.
        count: how many requests it answers.
        size: its bytes, for the bound.
        answer: becomes what the log says, once it and the nodes that were asked for have the batch.
    """

    producer_sequence: int
    count: int
    size: int
    answer: asyncio.Future[Answer]


@define
class _Line:
    """What is under way between the two tasks of a produce stream, in the order of the requests.

    Attributes:
        limit: bytes that may be under way; one append may be larger.
    """

    limit: int
    _waiting: deque[_Waiting] = Factory(deque)
    _bytes: int = 0
    _ended: bool = False
    _error: Exception | None = None
    _change: asyncio.Event = field(factory=asyncio.Event)
    _room: asyncio.Event = field(factory=asyncio.Event)

    async def wait_room(self, size: int) -> None:
        """Wait until an append of this size may be added."""
        while self._bytes and self._bytes + size > self.limit:
            self._room.clear()
            await self._room.wait()

    def add(self, waiting: _Waiting) -> None:
        self._bytes += waiting.size
        self._waiting.append(waiting)
        self._change.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will be added, because of the error if there is one."""
        self._ended = True
        self._error = error
        self._change.set()

    async def next(self) -> list[_Waiting]:
        """Return the oldest whose commits are over, at least one; an empty list at the end. Raises the error of end.

        Lets others run first, as receive_available does.
        """
        await asyncio.sleep(0)
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                return []
            self._change.clear()
            await self._change.wait()
        await self._waiting[0].answer
        finished: list[_Waiting] = []
        while self._waiting and self._waiting[0].answer.done() and len(finished) < _ANSWERED_AT_ONCE:
            finished.append(self._waiting.popleft())
        return finished

    def answered(self, finished: list[_Waiting]) -> None:
        self._bytes -= sum(waiting.size for waiting in finished)
        self._room.set()


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

    state: ServiceState

    async def produce(self, stream: Stream[log_v1.ProduceRequest, log_v1.ProduceResponse]) -> None:
        """Append one record."""
        with self._producing():
            request = await receive_only(stream)
            wanted = wanted_of(request.acknowledgement, self.state.config.acknowledgement)
            try:
                content = _content_of(request.record)
            except BatchRefused:
                self.state.counters.batches_refused += 1
                raise
            payload = _pack([content])
            batch = _batch(request, payload, 1, payload_crc(payload), 0)
            answer = await (await self._append(batch, wanted))
            if not isinstance(answer, Stored):
                raise answer
            appended, achieved = answer.appended, answer.achieved
            self._stored(appended.count)
            await stream.send_message(
                log_v1.ProduceResponse(
                    offset=appended.base_offset,
                    origin=appended.origin.data,
                    sequence=appended.base_sequence,
                    log_time=appended.log_time,
                    achieved=achieved.nodes,
                    reached=achieved.reached,
                )
            )

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
        read: Callable[[Stream[Request, Response], _Line], Awaitable[None]],
        answer: Callable[[Stream[Request, Response], list[_Waiting]], Awaitable[None]],
    ) -> None:
        line = _Line(self.state.config.in_flight_bytes)

        async def read_all() -> None:
            try:
                await read(stream, line)
            except asyncio.CancelledError:
                if not self.state.draining:
                    raise
                line.end(stopping_error())
            except Exception as error:  # noqa: BLE001 - raised by the other task, after the answers to what came before
                line.end(error)
            else:
                line.end()

        with self._producing():
            await stream.send_initial_metadata()
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_all())
                self.state.reading.add(reading)
                try:
                    while finished := await line.next():
                        await answer(stream, finished)
                        line.answered(finished)
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

    async def _append(self, batch: Batch, wanted: Wanted) -> asyncio.Future[Answer]:
        """Give a batch to the log, once it has room; return what becomes its answer.

        Raises:
            ProglogError: the log refuses it at once.
        """
        loop = asyncio.get_running_loop()
        is_large = len(batch.payload) > CHECKED_AT_ONCE_BYTES
        if is_large:
            try:
                await asyncio.sleep(0)
                for _ in self.state.log.check_steps(batch):
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            except ProglogError:
                self.state.counters.batches_refused += 1
                raise
        while True:
            answer: asyncio.Future[Answer] = loop.create_future()
            try:
                self.state.log.append_soon(batch, partial(self._appended, answer, wanted), checked=is_large)
            except LogBusy:
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

    def _appended(self, answer: asyncio.Future[Answer], wanted: Wanted, appended: Appended | ProglogError) -> None:
        """The log has answered: if more nodes are wanted, they are waited for."""
        if answer.done():
            return
        if not isinstance(appended, Appended):
            answer.set_result(appended)
            return

        def achieved(achieved: Achieved) -> None:
            _settle(answer, Stored(appended, achieved))

        if wanted.nodes <= THIS_NODE:
            achieved(Achieved(THIS_NODE, reached=True))
            return
        first, following = appended.base_sequence, appended.base_sequence + appended.count
        self.state.wait_acknowledged(appended.origin, first, following, wanted.nodes, wanted.seconds, achieved)

    def _stored(self, records: int) -> None:
        self.state.counters.batches_produced += 1
        self.state.counters.records_produced += records

    # -- ProduceStream -------------------------------------------------------------------------------------------------

    async def _read_records(self, stream: _RecordStream, line: _Line) -> None:
        number = 0
        while requests := await receive_available(stream, _READ_AT_ONCE_BYTES):
            group: list[Content] = []
            first = requests[0]
            for request in requests:
                number += 1
                try:
                    content = _content_of(request.record)
                    wanted_of(request.acknowledgement, self.state.config.acknowledgement)
                except (BatchRefused, GRPCError) as error:
                    await self._append_records(line, first, group)
                    self.state.counters.batches_refused += 1
                    raise _naming_request(error, number) from None
                if group and not _may_join(first, request):
                    await self._append_records(line, first, group)
                    group = []
                if not group:
                    first = request
                group.append(content)
            await self._append_records(line, first, group)

    async def _append_records(self, line: _Line, first: record_messages.ProduceRequest, group: list[Content]) -> None:
        if not group:
            return
        payload = _pack(group)
        batch = _batch(first, payload, len(group), payload_crc(payload), 0)
        size = len(payload) + len(group) * _OVERHEAD_BYTES
        await line.wait_room(size)
        wanted = wanted_of(first.acknowledgement, self.state.config.acknowledgement)
        line.add(_Waiting(first.producer_sequence, len(group), size, await self._append(batch, wanted)))

    async def _answer_records(self, stream: _RecordStream, finished: list[_Waiting]) -> None:
        responses: list[bytes] = []
        failure: Exception | None = None
        for waiting in finished:
            answer = waiting.answer.result()
            if not isinstance(answer, Stored):
                failure = answer
                break
            self._stored(waiting.count)
            responses += [
                prefixed(_produce_response(answer.appended, index, answer.achieved).SerializeToString())
                for index in range(waiting.count)
            ]
        if responses:
            await send_encoded(stream, b"".join(responses), len(responses))
        if failure is not None:
            raise failure

    # -- ProduceBatches ------------------------------------------------------------------------------------------------

    async def _read_batches(self, stream: _BatchStream, line: _Line) -> None:
        while requests := await receive_available(stream, _READ_AT_ONCE_BYTES):
            for request in requests:
                size = len(request.payload) + _OVERHEAD_BYTES
                await line.wait_room(size)
                try:
                    wanted = wanted_of(request.acknowledgement, self.state.config.acknowledgement)
                    answer = await self._append(
                        _batch(request, request.payload, request.count, request.payload_crc, request.attributes), wanted
                    )
                except (ProglogError, GRPCError) as error:
                    answer = asyncio.get_running_loop().create_future()
                    answer.set_result(error)
                # The request itself is not kept: it holds a payload of its own.
                line.add(_Waiting(request.producer_sequence, 1, size, answer))

    async def _answer_batches(self, stream: _BatchStream, finished: list[_Waiting]) -> None:
        responses = [prefixed(bytes(self._batch_response(waiting))) for waiting in finished]
        await send_encoded(stream, b"".join(responses), len(responses))

    def _batch_response(self, waiting: _Waiting) -> log_v1.ProduceBatchResponse:
        answer = waiting.answer.result()
        sequence = waiting.producer_sequence
        if not isinstance(answer, Stored):
            error = answer if isinstance(answer, GRPCError) else grpc_error(answer)
            return log_v1.ProduceBatchResponse(
                producer_sequence=sequence, error=log_v1.Error(code=error.status.value, message=error.message or "")
            )
        appended, achieved = answer.appended, answer.achieved
        self._stored(appended.count)
        return log_v1.ProduceBatchResponse(
            producer_sequence=sequence,
            base_offset=appended.base_offset,
            count=appended.count,
            origin=appended.origin.data,
            base_sequence=appended.base_sequence,
            log_time=appended.log_time,
            achieved=achieved.nodes,
            reached=achieved.reached,
            duplicate=appended.duplicate,
        )


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _content_of(record: _RecordFields | None) -> Content:
    if record is None:
        raise BatchRefused(_EMPTY)
    value, key, headers, timestamp = record.value, record.key, record.headers, record.timestamp
    if not headers:
        if value and not key and not timestamp:
            return value
        if not value and not key:
            raise BatchRefused(_EMPTY)
    return Record(value, key or None, dict(headers) or None, timestamp or None)


def _pack(contents: list[Content]) -> bytes:
    values = [content for content in contents if isinstance(content, bytes)]
    if len(values) == len(contents):
        return pack_values(values)
    return pack_records(Record(each) if isinstance(each, bytes) else each for each in contents)


def _batch(request: _BatchFields, payload: bytes, count: int, crc: int, attributes: int) -> Batch:
    return Batch(
        payload, count, crc, attributes, request.producer_id, request.producer_sequence, request.after_log_time
    )


def _may_join(first: record_messages.ProduceRequest, request: record_messages.ProduceRequest) -> bool:
    """Tell whether two records may be in one batch: nothing that is said of a batch differs between them."""
    if first.producer_id or request.producer_id or first.after_log_time != request.after_log_time:
        return False
    return bool(first.acknowledgement == request.acknowledgement)


def _naming_request(error: BatchRefused | GRPCError, number: int) -> Exception:
    if isinstance(error, GRPCError):
        return GRPCError(error.status, f"request {number}: {error.message}", error.details)
    return BatchRefused(f"request {number}: {error}")


def _produce_response(answer: Appended, index: int, achieved: Achieved) -> record_messages.ProduceResponse:
    return record_messages.ProduceResponse(
        offset=answer.base_offset + index,
        origin=answer.origin.data,
        sequence=answer.base_sequence + index,
        log_time=answer.log_time,
        achieved=achieved.nodes,
        reached=achieved.reached,
    )
