"""What a client's stream and its link to a node say to each other; links over gRPC are in client_streams.py."""

from __future__ import annotations

from grpclib.const import Status

from proglog_trio.errors import ProglogError


class StreamBroken(ProglogError):
    """A stream ended before its time: the connection was lost, or the node answered with a gRPC status.

    Attributes:
        status: the gRPC status, or None when the connection was lost without one.
    """

    def __init__(self, message: str, status: Status | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def refusal(self) -> Status | None:
        """The status if it says that the request itself is wrong, or None if the same may succeed later."""
        return None if self.status in _PASSING else self.status


_PASSING = frozenset(
    {
        None,
        Status.OK,
        Status.CANCELLED,
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.ABORTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
    }
)


def status_of_code(code: int) -> Status:
    """Return the gRPC status of a number on the wire; UNKNOWN for one that gRPC has not given out."""
    try:
        return Status(code)
    except ValueError:
        return Status.UNKNOWN
