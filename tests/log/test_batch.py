from __future__ import annotations

import pytest
from attrs import evolve

from proglog_trio.errors import BatchRefused
from proglog_trio.log.batch import Batch
from proglog_trio.log.format.record import Record, payload_crc

BATCH = Batch.of([Record(b"one"), Record(b"two", b"key")])


def test_batch_of_records_passes() -> None:
    assert BATCH.count == 2
    BATCH.check(len(BATCH.payload))


def test_batch_of_no_or_empty_records() -> None:
    with pytest.raises(BatchRefused, match="no records"):
        Batch.of([]).check(100)
    with pytest.raises(ValueError, match="record 0 is empty"):
        Batch.of([Record(b"")])


@pytest.mark.parametrize(
    ("batch", "limit", "what"),
    [
        (evolve(BATCH, count=0), 100, "no records"),
        (evolve(BATCH, count=-1), 100, "no records"),
        (evolve(BATCH, count=3), 100, "an array of 2 records, the batch says 3"),
        (BATCH, len(BATCH.payload) - 1, "more than the limit"),
        (evolve(BATCH, payload_crc=BATCH.payload_crc ^ 1), 100, "CRC-32C"),
        (evolve(BATCH, attributes=0x0008), 100, "the log's own"),
        (evolve(BATCH, attributes=0x0001), 100, "not known"),
        (evolve(BATCH, attributes=1 << 40), 100, "not known"),
        (Batch(b"\x92\xc1", 2, 0x0), 100, "CRC-32C"),
    ],
)
def test_batch_that_breaks_the_contract(batch: Batch, limit: int, what: str) -> None:
    with pytest.raises(BatchRefused, match=what):
        batch.check(limit)


def test_payload_that_is_no_msgpack() -> None:
    for payload in (b"", b"\x92\xc1", b"\x91\x91", b"\x91\x01\x02"):
        with pytest.raises(BatchRefused):
            Batch(payload, 1, payload_crc(payload)).check(100)
