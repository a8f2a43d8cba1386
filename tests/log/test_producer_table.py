from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import BatchRefused, ProducerSequenceTooOld, ProducerTableFull
from proglog_trio.log.batch import Appended
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.producer_table import (
    BATCHES_PER_PRODUCER,
    EXPIRY_MILLISECONDS,
    PROTECTED_MILLISECONDS,
    ProducerTable,
    StoredBatch,
)

NOW = 10**12


def stored(sequence: int, crc: int = 7) -> StoredBatch:
    return StoredBatch(sequence, crc, Appended(sequence * 10, 2, Origin(bytes(16)), sequence, 99))


def table_of(*sequences: int) -> ProducerTable:
    table = ProducerTable()
    for sequence in sequences:
        table.remember(1, stored(sequence), NOW)
    return table


def test_retry_is_found_and_new_is_not() -> None:
    table = table_of(1, 2)
    assert table.find(1, 1, 7, NOW) == stored(1)
    assert table.find(1, 3, 7, NOW) is None
    assert table.find(2, 1, 7, NOW) is None


def test_another_payload_is_refused() -> None:
    with pytest.raises(BatchRefused, match="sequence 2 with a payload of CRC-32C 0x00000007, the retry has 0x00000008"):
        table_of(1, 2).find(1, 2, 8, NOW)


def test_only_the_last_batches_are_known() -> None:
    table = table_of(*range(1, 9))
    assert table.find(1, 9 - BATCHES_PER_PRODUCER, 7, NOW) is not None
    with pytest.raises(ProducerSequenceTooOld, match="sequence 3 of producer 0x0000000000000001 is below its last, 8"):
        table.find(1, 8 - BATCHES_PER_PRODUCER, 7, NOW)


def test_numbers_may_jump_but_not_back() -> None:
    table = table_of(1, 5)
    with pytest.raises(ProducerSequenceTooOld):
        table.find(1, 3, 7, NOW)
    assert table.find(1, 100, 7, NOW) is None


def test_the_first_of_two_with_one_number_counts() -> None:
    table = table_of(1, 2)
    table.remember(1, stored(2, crc=9), NOW)
    assert table.find(1, 2, 7, NOW) == stored(2)


def test_older_batch_pulled_later_is_put_in_its_place() -> None:
    table = table_of(2, 5)
    table.remember(1, stored(3), NOW)
    assert table.find(1, 3, 7, NOW) == stored(3)
    assert table.find(1, 6, 7, NOW) is None


def full_table(last_used: int) -> ProducerTable:
    table = ProducerTable(max_producers=3)
    for producer in (1, 2, 3):
        table.remember(producer, stored(1), last_used)
    return table


def test_full_of_active_producers() -> None:
    table = full_table(NOW)
    with pytest.raises(ProducerTableFull, match="3 producers were active within 300 s"):
        table.find(4, 1, 7, NOW + PROTECTED_MILLISECONDS - 1)
    table.remember(4, stored(1), NOW)
    assert (len(table), table.not_remembered) == (3, 1)
    assert table.find(3, 2, 7, NOW) is None, "those that are known go on"


def test_idle_producer_makes_room_when_the_table_is_full() -> None:
    table = full_table(NOW)
    table.remember(1, stored(2), NOW + 1)
    assert table.find(4, 1, 7, NOW + PROTECTED_MILLISECONDS) is None
    table.remember(4, stored(1), NOW + PROTECTED_MILLISECONDS)
    assert len(table) == 3
    assert table.find(1, 2, 7, NOW + PROTECTED_MILLISECONDS) == stored(2), "the least recently used went"


def test_producers_expire() -> None:
    table = table_of(1)
    assert table.find(2, 1, 7, NOW + EXPIRY_MILLISECONDS - 1) is None
    assert len(table) == 1
    assert table.find(2, 1, 7, NOW + EXPIRY_MILLISECONDS) is None
    assert len(table) == 0


def test_time_that_was_once_far_ahead_does_not_block_the_table() -> None:
    """A wall clock that was set back, or a frame with a time of the next century, protects nobody for ever."""
    table = full_table(NOW + 10 * EXPIRY_MILLISECONDS)
    with pytest.raises(ProducerTableFull):
        table.find(4, 1, 7, NOW)
    assert table.find(4, 1, 7, NOW + PROTECTED_MILLISECONDS) is None


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(0, 400_000)), max_size=40))
def test_round_trip_and_bounds(steps: list[tuple[int, int, int]]) -> None:
    table = ProducerTable(max_producers=3)
    now = NOW
    for producer, sequence, later in steps:
        now += later
        table.remember(producer, stored(sequence), now)
        assert len(table) <= 3
    again = ProducerTable.decode(table.encode())
    assert again.encode() == table.encode()
    for _, _, batches in table.encode():
        numbers = [row[0] for row in batches]
        assert 1 <= len(numbers) <= BATCHES_PER_PRODUCER
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "rows", [[5], [[1]], [[1, 2, 3]], [[1, 2, [[1]]]], [["x", 2, []]], [[1, 2, [[1, 2, 3, 4, b"", 5, 6]]]]]
)
def test_rows_that_are_none(rows: list[object]) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        ProducerTable.decode(rows)
