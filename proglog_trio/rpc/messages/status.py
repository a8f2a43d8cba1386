"""Our errors as gRPC statuses (grpc/doc/statuscodes.md), each with its message."""

from __future__ import annotations

from google.rpc import error_details_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from proglog_trio.errors import (
    BatchRefused,
    DataLoss,
    FormatError,
    LogBusy,
    LogClosed,
    LogReadOnly,
    OutcomeUnknown,
    OutOfRange,
    PositionError,
    ProducerSequenceTooOld,
    ProducerTableFull,
    ProglogError,
)
from proglog_trio.replication.events import PeerLied, PullRefused

_STATUS_OF_ERROR: tuple[tuple[type[ProglogError], Status], ...] = (
    (BatchRefused, Status.INVALID_ARGUMENT),
    (PositionError, Status.INVALID_ARGUMENT),
    (ProducerSequenceTooOld, Status.FAILED_PRECONDITION),
    (ProducerTableFull, Status.RESOURCE_EXHAUSTED),
    (OutOfRange, Status.OUT_OF_RANGE),
    (DataLoss, Status.DATA_LOSS),
    (FormatError, Status.DATA_LOSS),
    (PeerLied, Status.INVALID_ARGUMENT),
    (PullRefused, Status.FAILED_PRECONDITION),
    # Of their own: nothing of the batch is stored, another node may take it; and it is not known whether it is.
    (LogReadOnly, Status.ABORTED),
    (OutcomeUnknown, Status.UNKNOWN),
    (LogBusy, Status.UNAVAILABLE),
    (LogClosed, Status.UNAVAILABLE),
)


def status_of(error: ProglogError) -> Status:
    """Return the gRPC status that says what this error says."""
    for kind, status in _STATUS_OF_ERROR:
        if isinstance(error, kind):
            return status
    return Status.INTERNAL


def grpc_error(error: ProglogError) -> GRPCError:
    """Return what a call that failed with this error is answered with.

    An offset out of range comes with a google.rpc.LocalizedMessage, as the book's service has it for its own error.
    """
    details = None
    if isinstance(error, OutOfRange):
        details = [error_details_pb2.LocalizedMessage(locale="en-US", message=str(error))]
    return GRPCError(status_of(error), str(error), details)
