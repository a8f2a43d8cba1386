"""What can go wrong for a client, each with its own type and what a caller needs to go on."""

from __future__ import annotations

from typing import Self

from proglog_trio.errors import ProglogError
from proglog_trio.rpc.calls.status_code import StatusCode


class ClientError(ProglogError):
    """The base of what the client library raises by itself."""


class NodeUnreachable(ClientError):
    """No stream to the node could be opened, or not again, within the time that the configuration allows."""


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
        super().__init__(f"a record of {size} bytes (packed) is larger than the limit of {limit} bytes")
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
        super().__init__(f"{count} records were not delivered, the first because: {first}")
        self.count = count
        self.first = first


# -- consuming ---------------------------------------------------------------------------------------------------------


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
        super().__init__(f"{what} (origin {origin}, sequence {sequence}) is malformed: {reason}")
        self.offset = offset
        self.origin = origin
        self.sequence = sequence
        self.count = count
