"""What was delivered: never more than was, and all of it within the bounds."""

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import given

from proglog_trio.client.delivered_window import (
    MAX_PARTS,
    MAX_PRODUCERS,
    RUNS_PER_PRODUCER,
    DeliveredWindow,
    check_position,
)
from proglog_trio.errors import PositionError
from proglog_trio.log.format.position import LARGEST_POSITION_BYTES, Position

COUNT = 4
DELIVERIES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(1, COUNT)),
    max_size=60,
)


@given(DELIVERIES, st.integers(1, 4))
def test_it_never_takes_for_delivered_what_was_not(deliveries: list[tuple[int, int, int]], most: int) -> None:
    window = DeliveredWindow(most)
    delivered: dict[tuple[int, int], int] = {}
    for producer, sequence, records in deliveries:
        window = window.after(producer, sequence, records, COUNT)
        place = (producer, sequence)
        delivered[place] = max(delivered.get(place, 0), records)
        assert window.delivered_of(producer, sequence, COUNT) == delivered[place], "the last is always known"
        for known in range(1, 5):
            for number in range(14):
                assert window.delivered_of(known, number, COUNT) <= delivered.get((known, number), 0)
        assert len(window) <= most
        assert window == DeliveredWindow.decode(window.encode(), most)
    assert DeliveredWindow.decode(window.encode(), most) == window


@given(DELIVERIES)
def test_within_the_bounds_it_knows_all(deliveries: list[tuple[int, int, int]]) -> None:
    window = DeliveredWindow()
    delivered: dict[tuple[int, int], int] = {}
    for producer, sequence, records in deliveries:
        window = window.after(producer, sequence, records, COUNT)
        delivered[producer, sequence] = max(delivered.get((producer, sequence), 0), records)
    # 13 sequences are at most 7 runs.
    for (producer, sequence), records in delivered.items():
        assert window.delivered_of(producer, sequence, COUNT) == records


def test_any_number_of_batches_in_order_is_one_run() -> None:
    window = DeliveredWindow()
    for sequence in range(1000):
        window = window.after(7, sequence, 1, 1)
    assert len(window.encode()) < 20
    assert window.delivered_of(7, 0, 5) == 5
    assert window.delivered_of(7, 999, 5) == 5
    assert window.delivered_of(7, 1000, 5) == 0


def test_the_highest_sequence_has_no_next() -> None:
    window = DeliveredWindow().after(1, 2**64 - 2, 1, 1).after(1, 2**64 - 1, 1, 1)
    assert DeliveredWindow.decode(window.encode()).delivered_of(1, 2**64 - 1, 1) == 1


def test_runs_that_meet_become_one() -> None:
    window = DeliveredWindow()
    for sequence in (3, 4, 1, 2, 0):
        window = window.after(7, sequence, 1, 1)
    assert msgpack.unpackb(window.encode(), strict_map_key=False) == [1, {7: [0, 4]}, []]


def test_the_lowest_run_is_forgotten_first() -> None:
    window = DeliveredWindow()
    for sequence in range(0, 2 * RUNS_PER_PRODUCER + 2, 2):
        window = window.after(7, sequence, 1, 1)
    assert window.delivered_of(7, 0, 1) == 0
    assert all(window.delivered_of(7, sequence, 1) for sequence in range(2, 2 * RUNS_PER_PRODUCER + 2, 2))


def test_the_producer_seen_longest_ago_is_forgotten_first() -> None:
    window = DeliveredWindow(2).after(1, 0, 1, 1).after(2, 0, 1, 1).seen(1).after(3, 0, 1, 1)
    assert [window.delivered_of(producer, 0, 1) for producer in (1, 2, 3)] == [1, 0, 1]
    again = DeliveredWindow.decode(window.encode(), 1)
    assert [again.delivered_of(producer, 0, 1) for producer in (1, 3)] == [0, 1], "the order is in its bytes"
    assert window.seen(2) is window
    for producer in range(100, 300):
        window = DeliveredWindow.decode(window.after(producer, 0, 1, 1).encode(), 100)
        assert 90 <= len(window) <= 100 or producer < 200
        assert all(window.delivered_of(kept, 0, 1) for kept in range(max(producer - 90, 100), producer + 1))


def test_a_part_becomes_the_whole() -> None:
    window = DeliveredWindow().after(1, 0, 2, 5)
    assert window.delivered_of(1, 0, 5) == 2
    assert window.after(1, 0, 1, 5).delivered_of(1, 0, 5) == 2, "it never moves back"
    window = window.after(1, 0, 5, 5)
    assert window.delivered_of(1, 0, 5) == 5
    assert window.after(1, 0, 3, 5) == window
    for sequence in range(1, MAX_PARTS + 2):
        window = window.after(1, sequence, 1, 2)
    assert window.delivered_of(1, 1, 2) == 0, "parts have a bound"
    assert window.delivered_of(1, MAX_PARTS + 1, 2) == 1


def test_nothing_is_kept_of_no_producer_or_for_no_producers() -> None:
    assert DeliveredWindow().after(0, 0, 1, 1).encode() == b""
    assert DeliveredWindow(0).after(1, 0, 1, 1).encode() == b""
    assert DeliveredWindow.decode(DeliveredWindow().after(1, 0, 1, 1).encode(), 0) == DeliveredWindow(0)


def test_the_largest_fits_a_position() -> None:
    high = 2**64 - 2 * RUNS_PER_PRODUCER
    runs = [number for run in range(RUNS_PER_PRODUCER) for number in (high + 2 * run, high + 2 * run)]
    largest = {2**64 - 1 - producer: runs for producer in range(MAX_PRODUCERS)}
    parts = [[2**64 - 1, high - part, 2**32 - 1] for part in range(MAX_PARTS)]
    window = DeliveredWindow.decode(msgpack.packb([1, largest, parts]))
    assert len(window) == MAX_PRODUCERS
    assert len(window.encode()) < LARGEST_POSITION_BYTES * 3 // 4
    assert DeliveredWindow.decode(window.encode()) == window


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (5, "what was delivered"),
        ([], "what was delivered"),
        ([2, {}, []], "version 2, this program reads version 1"),
        ([1, {1: [3]}, []], "what was delivered"),
        ([1, {1: [3, 2]}, []], "do not ascend"),
        ([1, {1: [3, 4, 4, 5]}, []], "do not ascend"),
        ([1, {1: []}, []], "do not ascend"),
        ([1, {"1": [3, 4]}, []], "no number"),
        ([1, {1: [-1, 4]}, []], "no number"),
        ([1, {}, [[1, 2]]], "what was delivered"),
        ([1, {}, [[1, 2, True]]], "no number"),
        ([1, [1], []], "what was delivered"),
    ],
)
def test_what_is_none_is_refused(body: object, what: str) -> None:
    with pytest.raises(PositionError, match=what):
        DeliveredWindow.decode(msgpack.packb(body))


@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_are_a_window_or_a_position_error(data: bytes) -> None:
    try:
        window = DeliveredWindow.decode(data)
    except PositionError:
        return
    assert DeliveredWindow.decode(window.encode()) == window


def test_a_position_is_checked_with_what_was_delivered() -> None:
    window = DeliveredWindow().after(1, 0, 1, 1)
    check_position(Position().encode(window.encode()))
    with pytest.raises(PositionError, match="what was delivered"):
        check_position(Position().encode(msgpack.packb(5)))
    with pytest.raises(PositionError):
        check_position(b"nonsense")
