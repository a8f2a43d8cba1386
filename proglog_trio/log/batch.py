"""Batches on their way into the log, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from attrs import frozen

from proglog_trio.errors import BatchRefused, FrameError, PayloadError
from proglog_trio.log.format.frame import MUST_UNDERSTAND_CONTROL, check_understood
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import Record, check_payload_steps, pack_records, payload_crc
from proglog_trio.steps import Steps, complete


@frozen
class Batch:
    """Records as one producer packed them, not stored yet.

    Attributes:
        payload: see record.py.
        count: how many records it holds.
        payload_crc: CRC-32C of the payload, computed by the producer.
        attributes: must-understand bits of the frame, see frame.py.
        producer_id, producer_sequence: name the batch, so that a retry is stored once; producer_id 0: no retries.
        after_log_time: the batch's log time is made greater than this one.
    """

    payload: bytes
    count: int
    payload_crc: int
    attributes: int = 0
    producer_id: int = 0
    producer_sequence: int = 0
    after_log_time: int = 0

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Return a batch of these records, without a producer; raises ValueError as pack_records does."""
        listed = list(records)
        payload = pack_records(listed)
        return cls(payload, len(listed), payload_crc(payload))

    def check(self, max_payload_bytes: int) -> None:
        """Check all that the server checks of a batch before it is stored.

        Raises:
            BatchRefused: naming what is wrong.
        """
        complete(self.check_steps(max_payload_bytes))

    def check_steps(self, max_payload_bytes: int) -> Steps[None]:
        """Do as check, in steps."""
        if self.count < 1:
            raise BatchRefused("the batch holds no records")
        if len(self.payload) > max_payload_bytes:
            raise BatchRefused(f"the batch has {len(self.payload)} bytes, more than the limit of {max_payload_bytes}")
        if self.attributes & MUST_UNDERSTAND_CONTROL:
            raise BatchRefused("the attribute for control frames is the log's own")
        try:
            check_understood(self.attributes)
        except FrameError as error:
            raise BatchRefused(str(error)) from None
        computed = payload_crc(self.payload)
        if computed != self.payload_crc:
            raise BatchRefused(f"the payload's CRC-32C is {computed:#010x}, the batch says {self.payload_crc:#010x}")
        try:
            yield from check_payload_steps(self.payload, self.count)
        except PayloadError as error:
            raise BatchRefused(str(error)) from None


@frozen
class Appended:
    """Where a batch stands in the log.

    Attributes:
        base_offset, count: its records have the local offsets [base_offset, base_offset + count).
        origin, base_sequence: and the names (origin, base_sequence) and on.
        log_time: see clock.py.
        duplicate: an earlier attempt had stored it.
    """

    base_offset: int
    count: int
    origin: Origin
    base_sequence: int
    log_time: int
    duplicate: bool = False
