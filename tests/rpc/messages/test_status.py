from __future__ import annotations

import inspect

import pytest
from grpclib.const import Status

from proglog_trio import errors
from proglog_trio.rpc.messages.status import _STATUS_OF_ERROR, grpc_error, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BatchRefused("why"), Status.INVALID_ARGUMENT),
        (errors.PositionError("why"), Status.INVALID_ARGUMENT),
        (errors.ProducerSequenceTooOld("why"), Status.FAILED_PRECONDITION),
        (errors.ProducerTableFull("why"), Status.RESOURCE_EXHAUSTED),
        (errors.LogReadOnly("why"), Status.ABORTED),
        (errors.OutcomeUnknown("why"), Status.UNKNOWN),
        (errors.LogClosed("why"), Status.UNAVAILABLE),
        (errors.DataLoss(1, 3, "why"), Status.DATA_LOSS),
        (errors.FrameError("why"), Status.DATA_LOSS),
        (errors.ProglogError("why"), Status.INTERNAL),
    ],
)
def test_each_error_has_its_status(error: errors.ProglogError, status: Status) -> None:
    found = grpc_error(error)
    assert (found.status, found.message, found.details) == (status, str(error), None)


def test_what_a_producer_must_tell_apart_has_a_status_of_its_own() -> None:
    """Refused before anything was written, not known, overtaken, and wrong: each asks for something else."""
    kinds = (errors.LogReadOnly, errors.OutcomeUnknown, errors.ProducerSequenceTooOld, errors.BatchRefused)
    statuses = {status_of(kind("why")) for kind in kinds}
    assert len(statuses) == len(kinds)
    others = {status for kind, status in _STATUS_OF_ERROR if kind not in kinds}
    assert not others & {status_of(errors.LogReadOnly("why")), status_of(errors.OutcomeUnknown("why"))}


@pytest.mark.parametrize("error", [errors.OffsetOutOfRange(5, 0, 3), errors.SequenceOutOfRange("0a", 1, 2)])
def test_out_of_range_comes_with_a_localized_message(error: errors.OutOfRange) -> None:
    found = grpc_error(error)
    assert found.status is Status.OUT_OF_RANGE
    (detail,) = found.details
    assert (detail.locale, detail.message) == ("en-US", str(error))


def test_no_error_of_the_log_is_forgotten() -> None:
    """Errors that a call can meet are no INTERNAL errors; those that it cannot are named here."""
    elsewhere = {
        *(errors.ProglogError, errors.CallFailed, errors.NameTaken, errors.AddressUnsuitable),
        *(errors.DataDirectoryError, errors.DataDirectoryFull, errors.DataDirectoryLost, errors.DirectoryCopied),
        *(errors.DataDirectoryUnavailable, errors.DataDirectoryHeld, errors.SecurityFileNoRoom),
        *(errors.AddressUnavailable, errors.AddressInUse),
        *(errors.RepairError, errors.SecurityFileError, errors.TlsError),
        *(errors.NodeConnectionError, errors.ConnectionNotOpened, errors.ConnectionLost),
    }
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.ProglogError) and kind not in elsewhere:
            error = kind.__new__(kind)
            assert status_of(error) is not Status.INTERNAL, kind
