"""What can go wrong for a client, each with its own type and what a caller needs to go on.

A message is one line: what happened, where, and, behind a semicolon, what to do next. docs/how-to/client-errors.md has
a table of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from proglog_trio.errors import ProglogError
from proglog_trio.rpc.calls.status_code import StatusCode

_NEXT: Mapping[StatusCode, str] = {
    StatusCode.INVALID_ARGUMENT: "compare the versions of this library and of the node",
    StatusCode.PERMISSION_DENIED: "ask who runs the node to allow it in its policy (--acl-policy-file)",
    StatusCode.UNAUTHENTICATED: "connect with a certificate that the node accepts (ClientTls)",
    StatusCode.UNIMPLEMENTED: "check that the address is a node's, and that it is not older than this library",
    StatusCode.ABORTED: "make room on the node's disk, or name other nodes too",
    StatusCode.FAILED_PRECONDITION: "change what the node says, or its configuration",
}
_NEXT_PRODUCING = {
    StatusCode.RESOURCE_EXHAUSTED: "lower max_batch_bytes if it is too large for the node, else name other nodes too",
}
_NEXT_CONSUMING = {
    StatusCode.RESOURCE_EXHAUSTED: "raise message_bytes (TransportConfig) if a message is too long, else name other "
    "nodes too",
    StatusCode.OUT_OF_RANGE: 'begin at a place that the log holds (Anchor.LOWEST), or leave out by on_missing="skip"',
    StatusCode.DATA_LOSS: 'wait with on_missing="wait", leave out with "skip", or see the nodes\' `status`',
}


def producing_next(status: StatusCode) -> str:
    """Return what to do when a node has refused a batch with a status, as a message ends."""
    return "; " + (_NEXT_PRODUCING.get(status) or _NEXT.get(status) or "see the node's log")


def consuming_next(status: StatusCode | None) -> str:
    """Return what to do when a node has refused to give batches with a status, as a message ends."""
    if status is None:
        return ""
    return "; " + (_NEXT_CONSUMING.get(status) or _NEXT.get(status) or "see the node's log")


class ClientError(ProglogError):
    """The base of what the client library raises by itself."""


class NodeUnreachable(ClientError):
    """No stream to the node could be opened, or not again, within the time that the configuration allows.

    The message has the last reason.
    """

    def __init__(self, what: str, option: str) -> None:
        """Begin with what was waited for and why it did not come; option says for how long it is waited for."""
        super().__init__(f"{what}; check that a node runs at the addresses given, or raise {option}")


class ClientForked(ClientError):
    """A client for threads was used in a process that was forked from its own: the thread behind it is not there."""


# -- producing ---------------------------------------------------------------------------------------------------------


class ProducerClosed(ClientError):
    """The producer's ``async with`` block has been left, or the task behind it failed: no more records can be sent."""


class RecordTooLarge(ClientError, ValueError):
    """One record alone is larger than a batch may be.

    Attributes:
        size, limit: in bytes, as packed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"a record of {size} bytes (packed) is larger than the limit of {limit} bytes; make it smaller, "
            "or raise max_batch_bytes, if the node takes so much"
        )
        self.size = size
        self.limit = limit


class DeliveryError(ClientError):
    """Records were not acknowledged.

    Attributes:
        maybe_stored: False when the node certainly did not store them; True when it may have, because they were sent
            and no answer came. Sending such records again can store them twice.
    """

    def __init__(self, message: str, *, maybe_stored: bool) -> None:
        super().__init__(message)
        self.maybe_stored = maybe_stored

    def again(self) -> Self:
        """Return a copy to raise: several waiters must not share one traceback."""
        copy = type(self).__new__(type(self), *self.args)
        copy.args = self.args
        copy.__dict__.update(self.__dict__)
        return copy


class DeliveryTimeout(DeliveryError):
    """No acknowledgement came within the delivery timeout; the message has the last error that stood in the way."""


class DeliveryRefused(DeliveryError):
    """The node refused the batch that held the records; trying again would not help.

    Attributes:
        status: the gRPC status that it gave.
    """

    def __init__(self, message: str, *, maybe_stored: bool, status: StatusCode) -> None:
        super().__init__(message, maybe_stored=maybe_stored)
        self.status = status


class DeliveryAbandoned(DeliveryError):
    """The producer's block was left by an exception or cancelled before the records were acknowledged."""


class RecordsNotDelivered(ClientError):
    """Records failed whose deliveries no task waited for; raised by ``flush`` and at the end of the producer's block.

    Attributes:
        count: how many records failed since the last time this was reported.
        first: the error of the first of them.
    """

    def __init__(self, count: int, first: DeliveryError) -> None:
        super().__init__(
            f"{count} records were not delivered, the first because: {first} (deliveries that are waited for say which)"
        )
        self.count = count
        self.first = first


# -- consuming ---------------------------------------------------------------------------------------------------------


OPEN_ANOTHER = "open another one at its position to read on"


class ConsumerClosed(ClientError):
    """The consumer's ``async with`` block has been left."""


class ConsumerError(ClientError):
    """The consumer cannot go on from where it is.

    Attributes:
        status: the gRPC status that the node gave, or None.
    """

    def __init__(self, message: str, status: StatusCode | None = None) -> None:
        super().__init__(message)
        self.status = status


class StartOutOfRange(ConsumerError):
    """The place to read from lies outside what the log holds: past its end, or what was there is retired or a gap."""


class RecordsLost(ConsumerError):
    """The next records are damaged, or missing at present, on all nodes asked; see ConsumerConfig.on_missing."""


class MalformedRecord(ClientError):
    """Something stored as a record that is none; iterating again goes on after it.

    Attributes:
        offset, origin, sequence: its place; the first record's if count is more than 1.
        count: how many records cannot be read; more than 1 when a whole batch cannot.
    """

    def __init__(self, reason: str, *, offset: int, origin: str, sequence: int, count: int = 1) -> None:
        what = f"the record at offset {offset}" if count == 1 else f"the batch of {count} records at offset {offset}"
        super().__init__(
            f"{what} (origin {origin}, sequence {sequence}) is malformed: {reason}; "
            "iterate again to go on after it, and look at what its producer writes"
        )
        self.offset = offset
        self.origin = origin
        self.sequence = sequence
        self.count = count
