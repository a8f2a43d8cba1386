"""What the requests of the produce calls ask to append, and how they are answered."""

from __future__ import annotations

from grpclib.exceptions import GRPCError

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import BatchRefused
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.format.record import Record, pack_records, pack_values, payload_crc
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.status import grpc_error
from proglog_trio.rpc.server.in_flight import Answer, Stored

Content = bytes | Record
"""What a record holds; bytes: a value and nothing else."""
_ProduceRequest = log_v1.ProduceRequest | record_messages.ProduceRequest | log_v1.ProduceBatchRequest
_EMPTY = "the record is empty: it has no value, no key and no headers"


def content_of(record: log_v1.Record | record_messages.Record | None) -> Content:
    """Return what a record of a request holds; raises BatchRefused if that is nothing."""
    if record is None:
        raise BatchRefused(_EMPTY)
    value, key, headers, timestamp = record.value, record.key, record.headers, record.timestamp
    if not headers:
        # the common case: no object is made for it
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


def batch_of_records(request: _ProduceRequest, contents: list[Content]) -> Batch:
    """Return the batch of some records that arrived one by one, of which the first came in this request."""
    payload = _pack(contents)
    return batch_of(request, payload, len(contents), payload_crc(payload), 0)


def batch_of(request: _ProduceRequest, payload: bytes, count: int, crc: int, attributes: int) -> Batch:
    """Return the batch that a request asks to append."""
    return Batch(
        payload, count, crc, attributes, request.producer_id, request.producer_sequence, request.after_log_time
    )


def may_join(first: record_messages.ProduceRequest, request: record_messages.ProduceRequest) -> bool:
    """Tell whether two records may be in one batch: nothing that is said of a batch differs between them."""
    # A producer that numbers its batches must find each number again: its records are not put together.
    if first.producer_id or request.producer_id or first.after_log_time != request.after_log_time:
        return False
    return bool(first.acknowledgement == request.acknowledgement)


def naming_request(error: BatchRefused | GRPCError, number: int) -> Exception:
    """Return an error that says which request of a stream it is of, counted from 1."""
    if isinstance(error, GRPCError):
        return GRPCError(error.status, f"request {number}: {error.message}", error.details)
    return BatchRefused(f"request {number}: {error}")


def produce_response(answer: Appended, index: int, achieved: AcknowledgementResult) -> record_messages.ProduceResponse:
    """Return what one record of a batch is answered with."""
    return record_messages.ProduceResponse(
        offset=answer.base_offset + index,
        origin=answer.origin.data,
        sequence=answer.base_sequence + index,
        log_time=answer.log_time,
        achieved=achieved.nodes,
        reached=achieved.reached,
    )


def batch_response(sequence: int, answer: Answer) -> log_v1.ProduceBatchResponse:
    """Return what a batch of ProduceBatches is answered with, or what it was refused with."""
    if not isinstance(answer, Stored):
        error = answer if isinstance(answer, GRPCError) else grpc_error(answer)
        return log_v1.ProduceBatchResponse(
            producer_sequence=sequence, error=log_v1.Error(code=error.status.value, message=error.message or "")
        )
    appended, achieved = answer.appended, answer.achieved
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
